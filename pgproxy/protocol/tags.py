"""The type byte of every message and the codes inside a few of them (manual: "Message Formats").

Frontend and backend share the number space, so one byte may carry two names; which is meant follows from who
sent it. Constants rather than an enum: compiled code compares them as machine integers.
"""

from __future__ import annotations

from typing import Final

# Frontend
BIND: Final[int] = 0x42  # 'B' Bind
CLOSE: Final[int] = 0x43  # 'C' Close
DESCRIBE: Final[int] = 0x44  # 'D' Describe
EXECUTE: Final[int] = 0x45  # 'E' Execute
FUNCTION_CALL: Final[int] = 0x46  # 'F' FunctionCall
FLUSH: Final[int] = 0x48  # 'H' Flush
PARSE: Final[int] = 0x50  # 'P' Parse
QUERY: Final[int] = 0x51  # 'Q' Query
SYNC: Final[int] = 0x53  # 'S' Sync
TERMINATE: Final[int] = 0x58  # 'X' Terminate
COPY_FAIL: Final[int] = 0x66  # 'f' CopyFail
PASSWORD: Final[int] = 0x70  # 'p' PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse

# Both
COPY_DATA: Final[int] = 0x64  # 'd' CopyData
COPY_DONE: Final[int] = 0x63  # 'c' CopyDone

# Backend
PARSE_COMPLETE: Final[int] = 0x31  # '1' ParseComplete
BIND_COMPLETE: Final[int] = 0x32  # '2' BindComplete
CLOSE_COMPLETE: Final[int] = 0x33  # '3' CloseComplete
NOTIFICATION_RESPONSE: Final[int] = 0x41  # 'A' NotificationResponse
COMMAND_COMPLETE: Final[int] = 0x43  # 'C' CommandComplete
DATA_ROW: Final[int] = 0x44  # 'D' DataRow
ERROR_RESPONSE: Final[int] = 0x45  # 'E' ErrorResponse
COPY_IN_RESPONSE: Final[int] = 0x47  # 'G' CopyInResponse
COPY_OUT_RESPONSE: Final[int] = 0x48  # 'H' CopyOutResponse
EMPTY_QUERY_RESPONSE: Final[int] = 0x49  # 'I' EmptyQueryResponse
BACKEND_KEY_DATA: Final[int] = 0x4B  # 'K' BackendKeyData
NOTICE_RESPONSE: Final[int] = 0x4E  # 'N' NoticeResponse
AUTHENTICATION: Final[int] = 0x52  # 'R' Authentication…
PARAMETER_STATUS: Final[int] = 0x53  # 'S' ParameterStatus
ROW_DESCRIPTION: Final[int] = 0x54  # 'T' RowDescription
FUNCTION_CALL_RESPONSE: Final[int] = 0x56  # 'V' FunctionCallResponse
COPY_BOTH_RESPONSE: Final[int] = 0x57  # 'W' CopyBothResponse
READY_FOR_QUERY: Final[int] = 0x5A  # 'Z' ReadyForQuery
NO_DATA: Final[int] = 0x6E  # 'n' NoData
PORTAL_SUSPENDED: Final[int] = 0x73  # 's' PortalSuspended
PARAMETER_DESCRIPTION: Final[int] = 0x74  # 't' ParameterDescription
NEGOTIATE_PROTOCOL_VERSION: Final[int] = 0x76  # 'v' NegotiateProtocolVersion

# What Describe and Close name
STATEMENT: Final[int] = 0x53  # 'S' prepared statement
PORTAL: Final[int] = 0x50  # 'P' portal

# ReadyForQuery's transaction status
IDLE: Final[int] = 0x49  # 'I' not in a transaction block
IN_TRANSACTION: Final[int] = 0x54  # 'T' in a transaction block
FAILED_TRANSACTION: Final[int] = 0x45  # 'E' in a failed transaction block

# Authentication… messages' Int32
AUTH_OK: Final[int] = 0  # AuthenticationOk
AUTH_KERBEROS_V5: Final[int] = 2  # AuthenticationKerberosV5
AUTH_CLEARTEXT_PASSWORD: Final[int] = 3  # AuthenticationCleartextPassword
AUTH_MD5_PASSWORD: Final[int] = 5  # AuthenticationMD5Password
AUTH_GSS: Final[int] = 7  # AuthenticationGSS
AUTH_GSS_CONTINUE: Final[int] = 8  # AuthenticationGSSContinue
AUTH_SSPI: Final[int] = 9  # AuthenticationSSPI
AUTH_SASL: Final[int] = 10  # AuthenticationSASL
AUTH_SASL_CONTINUE: Final[int] = 11  # AuthenticationSASLContinue
AUTH_SASL_FINAL: Final[int] = 12  # AuthenticationSASLFinal

# In the place of the protocol version in a first packet
CANCEL_REQUEST: Final[int] = 80877102  # CancelRequest
SSL_REQUEST: Final[int] = 80877103  # SSLRequest
GSSENC_REQUEST: Final[int] = 80877104  # GSSENCRequest

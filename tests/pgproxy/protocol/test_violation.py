from pgproxy.protocol.violation import OptionRejected, ProtocolViolation


def test_a_violation_is_08p01_unless_said_otherwise() -> None:
    violation = ProtocolViolation("invalid message format")
    assert (violation.sqlstate, violation.message, str(violation)) == (
        "08P01",
        "invalid message format",
        "invalid message format",
    )
    assert ProtocolViolation("too large", "54000").sqlstate == "54000"


def test_a_rejected_option_names_its_switch() -> None:
    rejected = OptionRejected("-B", "command-line option -B is not supported")
    assert (rejected.switch, rejected.sqlstate, str(rejected)) == ("-B", "0A000", rejected.message)

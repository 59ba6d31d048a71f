"""The allow-list: every node, field and enum value of a raw parse tree this classifier understands.

Why a list of what is allowed: a later grammar may add a field that runs something (PostgreSQL 18 added
`RETURNING WITH (OLD AS …)`, 14 `sql_body`). What is not written here makes a statement `unknown`, at run time
and not only in the test that compares this table with the grammar's own descriptor.

Nodes and fields that only parse analysis or the planner produce (`Var`, `Query`, `OpExpr`, …) are left out on
purpose: a raw parse tree never holds them, so meeting one means something is not as believed.

Notation, one node a paragraph: `field` is a plain value, `field@` a node or a list of nodes, `field:Type`
a node of that type without its wrapper, `field=Enum` a value of that enum.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_NODES = """
Integer: ival
Float: fval
Boolean: boolval
String: sval
BitString: bsval
List: items@
A_Const: ival:Integer fval:Float boolval:Boolean sval:String bsval:BitString isnull
Alias: aliasname colnames@
RangeVar: catalogname schemaname relname inh relpersistence alias:Alias
IntoClause: rel:RangeVar colNames@ accessMethod options@ onCommit=OnCommitAction tableSpaceName skipData
GroupingFunc: args@
NamedArgExpr: arg@ name argnumber
BoolExpr: boolop=BoolExprType args@
SubLink: subLinkType=SubLinkType testexpr@ operName@ subselect@
CaseExpr: arg@ args@ defresult@
CaseWhen: expr@ result@
RowExpr: args@ row_format=CoercionForm colnames@
CoalesceExpr: args@
MinMaxExpr: op=MinMaxOp args@
SQLValueFunction: op=SQLValueFunctionOp typmod
XmlExpr: op=XmlExprOp name named_args@ arg_names@ args@ xmloption=XmlOptionType indent
JsonFormat: format_type=JsonFormatType encoding=JsonEncoding
JsonReturning: format:JsonFormat
JsonValueExpr: raw_expr@ format:JsonFormat
JsonIsPredicate: expr@ format:JsonFormat item_type=JsonValueType unique_keys
JsonBehavior: btype=JsonBehaviorType expr@ coerce
NullTest: arg@ nulltesttype=NullTestType
BooleanTest: arg@ booltesttype=BoolTestType
SetToDefault:
CurrentOfExpr: cursor_name
JoinExpr: jointype=JoinType isNatural larg@ rarg@ usingClause@ join_using_alias:Alias quals@ alias:Alias
TypeName: names@ setof pct_type typmods@ typemod arrayBounds@
ColumnRef: fields@
ParamRef: number
A_Expr: kind=A_Expr_Kind name@ lexpr@ rexpr@ rexpr_list_start rexpr_list_end
TypeCast: arg@ typeName:TypeName
CollateClause: arg@ collname@
RoleSpec: roletype=RoleSpecType rolename
FuncCall: funcname@ args@ agg_order@ agg_filter@ over:WindowDef agg_within_group agg_star agg_distinct
    func_variadic funcformat=CoercionForm
A_Star:
A_Indices: is_slice lidx@ uidx@
A_Indirection: arg@ indirection@
A_ArrayExpr: elements@ list_start list_end
ResTarget: name indirection@ val@
MultiAssignRef: source@ colno ncolumns
SortBy: node@ sortby_dir=SortByDir sortby_nulls=SortByNulls useOp@
WindowDef: name refname partitionClause@ orderClause@ frameOptions startOffset@ endOffset@
RangeSubselect: lateral subquery@ alias:Alias
RangeFunction: lateral ordinality is_rowsfrom functions@ alias:Alias coldeflist@
RangeTableFunc: lateral docexpr@ rowexpr@ namespaces@ columns@ alias:Alias
RangeTableFuncCol: colname typeName:TypeName for_ordinality is_not_null colexpr@ coldefexpr@
RangeTableSample: relation@ method@ args@ repeatable@
ColumnDef: colname typeName:TypeName compression inhcount is_local is_not_null is_from_type storage
    storage_name raw_default@ identity identitySequence:RangeVar generated collClause:CollateClause
    constraints@ fdwoptions@
TableLikeClause: relation:RangeVar options
IndexElem: name expr@ indexcolname collation@ opclass@ opclassopts@ ordering=SortByDir
    nulls_ordering=SortByNulls
DefElem: defnamespace defname arg@ defaction=DefElemAction
LockingClause: lockedRels@ strength=LockClauseStrength waitPolicy=LockWaitPolicy
XmlSerialize: xmloption=XmlOptionType expr@ typeName:TypeName indent
PartitionElem: name expr@ collation@ opclass@
PartitionSpec: strategy=PartitionStrategy partParams@
PartitionBoundSpec: strategy is_default modulus remainder listdatums@ lowerdatums@ upperdatums@
PartitionRangeDatum: kind=PartitionRangeDatumKind value@
PartitionCmd: name:RangeVar bound:PartitionBoundSpec concurrent
GroupingSet: kind=GroupingSetKind content@
WithClause: ctes@ recursive
InferClause: indexElems@ whereClause@ conname
OnConflictClause: action=OnConflictAction infer:InferClause targetList@ whereClause@
CTESearchClause: search_col_list@ search_breadth_first search_seq_column
CTECycleClause: cycle_col_list@ cycle_mark_column cycle_mark_value@ cycle_mark_default@
    cycle_path_column
CommonTableExpr: ctename aliascolnames@ ctematerialized=CTEMaterialize ctequery@
    search_clause:CTESearchClause cycle_clause:CTECycleClause
MergeWhenClause: matchKind=MergeMatchKind commandType=CmdType override=OverridingKind condition@
    targetList@ values@
MergeSupportFunc: msftype
ReturningOption: option=ReturningOptionKind value
ReturningClause: options@ exprs@
TriggerTransition: name isNew isTable
JsonOutput: typeName:TypeName returning:JsonReturning
JsonArgument: val:JsonValueExpr name
JsonFuncExpr: op=JsonExprOp column_name context_item:JsonValueExpr pathspec@ passing@ output:JsonOutput
    on_empty:JsonBehavior on_error:JsonBehavior wrapper=JsonWrapper quotes=JsonQuotes
JsonTablePathSpec: string@ name name_location
JsonTable: context_item:JsonValueExpr pathspec:JsonTablePathSpec passing@ columns@ on_error:JsonBehavior
    alias:Alias lateral
JsonTableColumn: coltype=JsonTableColumnType name typeName:TypeName pathspec:JsonTablePathSpec
    format:JsonFormat wrapper=JsonWrapper quotes=JsonQuotes columns@ on_empty:JsonBehavior
    on_error:JsonBehavior
JsonKeyValue: key@ value:JsonValueExpr
JsonParseExpr: expr:JsonValueExpr output:JsonOutput unique_keys
JsonScalarExpr: expr@ output:JsonOutput
JsonSerializeExpr: expr:JsonValueExpr output:JsonOutput
JsonObjectConstructor: exprs@ output:JsonOutput absent_on_null unique
JsonArrayConstructor: exprs@ output:JsonOutput absent_on_null
JsonArrayQueryConstructor: query@ output:JsonOutput format:JsonFormat absent_on_null
JsonAggConstructor: output:JsonOutput agg_filter@ agg_order@ over:WindowDef
JsonObjectAgg: constructor:JsonAggConstructor arg:JsonKeyValue absent_on_null unique
JsonArrayAgg: constructor:JsonAggConstructor arg:JsonValueExpr absent_on_null
InsertStmt: relation:RangeVar cols@ selectStmt@ onConflictClause:OnConflictClause
    returningClause:ReturningClause withClause:WithClause override=OverridingKind
DeleteStmt: relation:RangeVar usingClause@ whereClause@ returningClause:ReturningClause
    withClause:WithClause
UpdateStmt: relation:RangeVar targetList@ whereClause@ fromClause@ returningClause:ReturningClause
    withClause:WithClause
MergeStmt: relation:RangeVar sourceRelation@ joinCondition@ mergeWhenClauses@
    returningClause:ReturningClause withClause:WithClause
SelectStmt: distinctClause@ intoClause:IntoClause targetList@ fromClause@ whereClause@ groupClause@
    groupDistinct havingClause@ windowClause@ valuesLists@ sortClause@ limitOffset@ limitCount@
    limitOption=LimitOption lockingClause@ withClause:WithClause op=SetOperation all larg:SelectStmt
    rarg:SelectStmt
ReturnStmt: returnval@
CreateSchemaStmt: schemaname authrole:RoleSpec schemaElts@ if_not_exists
AlterTableStmt: relation:RangeVar cmds@ objtype=ObjectType missing_ok
AlterTableCmd: subtype=AlterTableType name num newowner:RoleSpec def@ behavior=DropBehavior missing_ok
    recurse
ATAlterConstraint: conname alterEnforceability is_enforced alterDeferrability deferrable initdeferred
    alterInheritability noinherit
ReplicaIdentityStmt: identity_type name
AlterCollationStmt: collname@
AlterDomainStmt: subtype typeName@ name def@ behavior=DropBehavior missing_ok
GrantStmt: is_grant targtype=GrantTargetType objtype=ObjectType objects@ privileges@ grantees@
    grant_option grantor:RoleSpec behavior=DropBehavior
ObjectWithArgs: objname@ objargs@ objfuncargs@ args_unspecified
AccessPriv: priv_name cols@
GrantRoleStmt: granted_roles@ grantee_roles@ is_grant opt@ grantor:RoleSpec behavior=DropBehavior
AlterDefaultPrivilegesStmt: options@ action:GrantStmt
CopyStmt: relation:RangeVar query@ attlist@ is_from is_program filename options@ whereClause@
VariableSetStmt: kind=VariableSetKind name args@ jumble_args is_local
VariableShowStmt: name
CreateStmt: relation:RangeVar tableElts@ inhRelations@ partbound:PartitionBoundSpec
    partspec:PartitionSpec ofTypename:TypeName constraints@ options@ oncommit=OnCommitAction
    tablespacename accessMethod if_not_exists
Constraint: contype=ConstrType conname deferrable initdeferred is_enforced skip_validation
    initially_valid is_no_inherit raw_expr@ generated_when generated_kind nulls_not_distinct keys@
    without_overlaps including@ exclusions@ options@ indexname indexspace reset_default_tblspc
    access_method where_clause@ pktable:RangeVar fk_attrs@ pk_attrs@ fk_with_period pk_with_period
    fk_matchtype fk_upd_action fk_del_action fk_del_set_cols@
CreateTableSpaceStmt: tablespacename owner:RoleSpec options@
DropTableSpaceStmt: tablespacename missing_ok
AlterTableSpaceOptionsStmt: tablespacename options@ isReset
AlterTableMoveAllStmt: orig_tablespacename objtype=ObjectType roles@ new_tablespacename nowait
CreateExtensionStmt: extname if_not_exists options@
AlterExtensionStmt: extname options@
AlterExtensionContentsStmt: extname action objtype=ObjectType object@
CreateFdwStmt: fdwname func_options@ options@
AlterFdwStmt: fdwname func_options@ options@
CreateForeignServerStmt: servername servertype version fdwname if_not_exists options@
AlterForeignServerStmt: servername version options@ has_version
CreateForeignTableStmt: base:CreateStmt servername options@
CreateUserMappingStmt: user:RoleSpec servername if_not_exists options@
AlterUserMappingStmt: user:RoleSpec servername options@
DropUserMappingStmt: user:RoleSpec servername missing_ok
ImportForeignSchemaStmt: server_name remote_schema local_schema list_type=ImportForeignSchemaType
    table_list@ options@
CreatePolicyStmt: policy_name table:RangeVar cmd_name permissive roles@ qual@ with_check@
AlterPolicyStmt: policy_name table:RangeVar roles@ qual@ with_check@
CreateAmStmt: amname handler_name@ amtype
CreateTrigStmt: replace isconstraint trigname relation:RangeVar funcname@ args@ row timing events
    columns@ whenClause@ transitionRels@ deferrable initdeferred constrrel:RangeVar
CreateEventTrigStmt: trigname eventname whenclause@ funcname@
AlterEventTrigStmt: trigname tgenabled
CreatePLangStmt: replace plname plhandler@ plinline@ plvalidator@ pltrusted
CreateRoleStmt: stmt_type=RoleStmtType role options@
AlterRoleStmt: role:RoleSpec options@ action
AlterRoleSetStmt: role:RoleSpec database setstmt:VariableSetStmt
DropRoleStmt: roles@ missing_ok
CreateSeqStmt: sequence:RangeVar options@ for_identity if_not_exists
AlterSeqStmt: sequence:RangeVar options@ for_identity missing_ok
DefineStmt: kind=ObjectType oldstyle defnames@ args@ definition@ if_not_exists replace
CreateDomainStmt: domainname@ typeName:TypeName collClause:CollateClause constraints@
CreateOpClassStmt: opclassname@ opfamilyname@ amname datatype:TypeName items@ isDefault
CreateOpClassItem: itemtype name:ObjectWithArgs number order_family@ class_args@ storedtype:TypeName
CreateOpFamilyStmt: opfamilyname@ amname
AlterOpFamilyStmt: opfamilyname@ amname isDrop items@
DropStmt: objects@ removeType=ObjectType behavior=DropBehavior missing_ok concurrent
TruncateStmt: relations@ restart_seqs behavior=DropBehavior
CommentStmt: objtype=ObjectType object@ comment
SecLabelStmt: objtype=ObjectType object@ provider label
DeclareCursorStmt: portalname options query@
ClosePortalStmt: portalname
FetchStmt: direction=FetchDirection howMany portalname ismove
IndexStmt: idxname relation:RangeVar accessMethod tableSpace indexParams@ indexIncludingParams@ options@
    whereClause@ excludeOpNames@ unique nulls_not_distinct primary isconstraint iswithoutoverlaps
    deferrable initdeferred concurrent if_not_exists reset_default_tblspc
CreateStatsStmt: defnames@ stat_types@ exprs@ relations@ if_not_exists
StatsElem: name expr@
AlterStatsStmt: defnames@ stxstattarget@ missing_ok
CreateFunctionStmt: is_procedure replace funcname@ parameters@ returnType:TypeName options@ sql_body@
FunctionParameter: name argType:TypeName mode=FunctionParameterMode defexpr@
AlterFunctionStmt: objtype=ObjectType func:ObjectWithArgs actions@
DoStmt: args@
CallStmt: funccall:FuncCall
RenameStmt: renameType=ObjectType relationType=ObjectType relation:RangeVar object@ subname newname
    behavior=DropBehavior missing_ok
AlterObjectDependsStmt: objectType=ObjectType relation:RangeVar object@ extname:String remove
AlterObjectSchemaStmt: objectType=ObjectType relation:RangeVar object@ newschema missing_ok
AlterOwnerStmt: objectType=ObjectType relation:RangeVar object@ newowner:RoleSpec
AlterOperatorStmt: opername:ObjectWithArgs options@
AlterTypeStmt: typeName@ options@
RuleStmt: relation:RangeVar rulename whereClause@ event=CmdType instead actions@ replace
NotifyStmt: conditionname payload
ListenStmt: conditionname
UnlistenStmt: conditionname
TransactionStmt: kind=TransactionStmtKind options@ savepoint_name gid chain
CompositeTypeStmt: typevar:RangeVar coldeflist@
CreateEnumStmt: typeName@ vals@
CreateRangeStmt: typeName@ params@
AlterEnumStmt: typeName@ oldVal newVal newValNeighbor newValIsAfter skipIfNewValExists
ViewStmt: view:RangeVar aliases@ query@ replace options@ withCheckOption=ViewCheckOption
LoadStmt: filename
CreatedbStmt: dbname options@
AlterDatabaseStmt: dbname options@
AlterDatabaseRefreshCollStmt: dbname
AlterDatabaseSetStmt: dbname setstmt:VariableSetStmt
DropdbStmt: dbname missing_ok options@
AlterSystemStmt: setstmt:VariableSetStmt
ClusterStmt: relation:RangeVar indexname params@
VacuumStmt: options@ rels@ is_vacuumcmd
VacuumRelation: relation:RangeVar va_cols@
ExplainStmt: query@ options@
CreateTableAsStmt: query@ into:IntoClause objtype=ObjectType is_select_into if_not_exists
RefreshMatViewStmt: concurrent skipData relation:RangeVar
CheckPointStmt:
DiscardStmt: target=DiscardMode
LockStmt: relations@ mode nowait
ConstraintsSetStmt: constraints@ deferred
ReindexStmt: kind=ReindexObjectType relation:RangeVar name params@
CreateConversionStmt: conversion_name@ for_encoding_name to_encoding_name func_name@ def
CreateCastStmt: sourcetype:TypeName targettype:TypeName func:ObjectWithArgs context=CoercionContext
    inout
CreateTransformStmt: replace type_name:TypeName lang fromsql:ObjectWithArgs tosql:ObjectWithArgs
PrepareStmt: name argtypes@ query@
ExecuteStmt: name params@
DeallocateStmt: name isall
DropOwnedStmt: roles@ behavior=DropBehavior
ReassignOwnedStmt: roles@ newrole:RoleSpec
AlterTSDictionaryStmt: dictname@ options@
AlterTSConfigurationStmt: kind=AlterTSConfigType cfgname@ tokentype@ dicts@ override replace missing_ok
PublicationTable: relation:RangeVar whereClause@ columns@
PublicationObjSpec: pubobjtype=PublicationObjSpecType name pubtable:PublicationTable
CreatePublicationStmt: pubname options@ pubobjects@ for_all_tables
AlterPublicationStmt: pubname options@ pubobjects@ for_all_tables action=AlterPublicationAction
CreateSubscriptionStmt: subname conninfo publication@ options@
AlterSubscriptionStmt: kind=AlterSubscriptionType subname conninfo publication@ options@
DropSubscriptionStmt: subname missing_ok behavior=DropBehavior
"""

_ENUMS = """
SortByDir: SORTBY_DEFAULT SORTBY_ASC SORTBY_DESC SORTBY_USING
SortByNulls: SORTBY_NULLS_DEFAULT SORTBY_NULLS_FIRST SORTBY_NULLS_LAST
A_Expr_Kind: AEXPR_OP AEXPR_OP_ANY AEXPR_OP_ALL AEXPR_DISTINCT AEXPR_NOT_DISTINCT AEXPR_NULLIF AEXPR_IN
    AEXPR_LIKE AEXPR_ILIKE AEXPR_SIMILAR AEXPR_BETWEEN AEXPR_NOT_BETWEEN AEXPR_BETWEEN_SYM
    AEXPR_NOT_BETWEEN_SYM
RoleSpecType: ROLESPEC_CSTRING ROLESPEC_CURRENT_ROLE ROLESPEC_CURRENT_USER ROLESPEC_SESSION_USER
    ROLESPEC_PUBLIC
DefElemAction: DEFELEM_UNSPEC DEFELEM_SET DEFELEM_ADD DEFELEM_DROP
PartitionStrategy: PARTITION_STRATEGY_LIST PARTITION_STRATEGY_RANGE PARTITION_STRATEGY_HASH
PartitionRangeDatumKind: PARTITION_RANGE_DATUM_MINVALUE PARTITION_RANGE_DATUM_VALUE
    PARTITION_RANGE_DATUM_MAXVALUE
GroupingSetKind: GROUPING_SET_EMPTY GROUPING_SET_SIMPLE GROUPING_SET_ROLLUP GROUPING_SET_CUBE
    GROUPING_SET_SETS
CTEMaterialize: CTEMaterializeDefault CTEMaterializeAlways CTEMaterializeNever
ReturningOptionKind: RETURNING_OPTION_OLD RETURNING_OPTION_NEW
JsonQuotes: JS_QUOTES_UNSPEC JS_QUOTES_KEEP JS_QUOTES_OMIT
JsonTableColumnType: JTC_FOR_ORDINALITY JTC_REGULAR JTC_EXISTS JTC_FORMATTED JTC_NESTED
SetOperation: SETOP_NONE SETOP_UNION SETOP_INTERSECT SETOP_EXCEPT
ObjectType: OBJECT_ACCESS_METHOD OBJECT_AGGREGATE OBJECT_AMOP OBJECT_AMPROC OBJECT_ATTRIBUTE OBJECT_CAST
    OBJECT_COLUMN OBJECT_COLLATION OBJECT_CONVERSION OBJECT_DATABASE OBJECT_DEFAULT OBJECT_DEFACL
    OBJECT_DOMAIN OBJECT_DOMCONSTRAINT OBJECT_EVENT_TRIGGER OBJECT_EXTENSION OBJECT_FDW
    OBJECT_FOREIGN_SERVER OBJECT_FOREIGN_TABLE OBJECT_FUNCTION OBJECT_INDEX OBJECT_LANGUAGE
    OBJECT_LARGEOBJECT OBJECT_MATVIEW OBJECT_OPCLASS OBJECT_OPERATOR OBJECT_OPFAMILY
    OBJECT_PARAMETER_ACL OBJECT_POLICY OBJECT_PROCEDURE OBJECT_PUBLICATION OBJECT_PUBLICATION_NAMESPACE
    OBJECT_PUBLICATION_REL OBJECT_ROLE OBJECT_ROUTINE OBJECT_RULE OBJECT_SCHEMA OBJECT_SEQUENCE
    OBJECT_SUBSCRIPTION OBJECT_STATISTIC_EXT OBJECT_TABCONSTRAINT OBJECT_TABLE OBJECT_TABLESPACE
    OBJECT_TRANSFORM OBJECT_TRIGGER OBJECT_TSCONFIGURATION OBJECT_TSDICTIONARY OBJECT_TSPARSER
    OBJECT_TSTEMPLATE OBJECT_TYPE OBJECT_USER_MAPPING OBJECT_VIEW
DropBehavior: DROP_RESTRICT DROP_CASCADE
AlterTableType: AT_AddColumn AT_ColumnDefault AT_DropNotNull AT_SetNotNull AT_SetExpression
    AT_DropExpression AT_SetStatistics AT_SetOptions AT_ResetOptions AT_SetStorage AT_SetCompression
    AT_DropColumn AT_AddIndex AT_AddConstraint AT_AlterConstraint AT_ValidateConstraint
    AT_AddIndexConstraint AT_DropConstraint AT_AlterColumnType AT_AlterColumnGenericOptions
    AT_ChangeOwner AT_ClusterOn AT_DropCluster AT_SetLogged AT_SetUnLogged AT_DropOids
    AT_SetAccessMethod AT_SetTableSpace AT_SetRelOptions AT_ResetRelOptions AT_ReplaceRelOptions
    AT_EnableTrig AT_EnableAlwaysTrig AT_EnableReplicaTrig AT_DisableTrig AT_EnableTrigAll
    AT_DisableTrigAll AT_EnableTrigUser AT_DisableTrigUser AT_EnableRule AT_EnableAlwaysRule
    AT_EnableReplicaRule AT_DisableRule AT_AddInherit AT_DropInherit AT_AddOf AT_DropOf
    AT_ReplicaIdentity AT_EnableRowSecurity AT_DisableRowSecurity AT_ForceRowSecurity
    AT_NoForceRowSecurity AT_GenericOptions AT_AttachPartition AT_DetachPartition
    AT_DetachPartitionFinalize AT_AddIdentity AT_SetIdentity AT_DropIdentity
GrantTargetType: ACL_TARGET_OBJECT ACL_TARGET_ALL_IN_SCHEMA ACL_TARGET_DEFAULTS
VariableSetKind: VAR_SET_VALUE VAR_SET_DEFAULT VAR_SET_CURRENT VAR_SET_MULTI VAR_RESET VAR_RESET_ALL
ConstrType: CONSTR_NULL CONSTR_NOTNULL CONSTR_DEFAULT CONSTR_IDENTITY CONSTR_GENERATED CONSTR_CHECK
    CONSTR_PRIMARY CONSTR_UNIQUE CONSTR_EXCLUSION CONSTR_FOREIGN CONSTR_ATTR_DEFERRABLE
    CONSTR_ATTR_NOT_DEFERRABLE CONSTR_ATTR_DEFERRED CONSTR_ATTR_IMMEDIATE CONSTR_ATTR_ENFORCED
    CONSTR_ATTR_NOT_ENFORCED
ImportForeignSchemaType: FDW_IMPORT_SCHEMA_ALL FDW_IMPORT_SCHEMA_LIMIT_TO FDW_IMPORT_SCHEMA_EXCEPT
RoleStmtType: ROLESTMT_ROLE ROLESTMT_USER ROLESTMT_GROUP
FetchDirection: FETCH_FORWARD FETCH_BACKWARD FETCH_ABSOLUTE FETCH_RELATIVE
FunctionParameterMode: FUNC_PARAM_IN FUNC_PARAM_OUT FUNC_PARAM_INOUT FUNC_PARAM_VARIADIC
    FUNC_PARAM_TABLE FUNC_PARAM_DEFAULT
TransactionStmtKind: TRANS_STMT_BEGIN TRANS_STMT_START TRANS_STMT_COMMIT TRANS_STMT_ROLLBACK
    TRANS_STMT_SAVEPOINT TRANS_STMT_RELEASE TRANS_STMT_ROLLBACK_TO TRANS_STMT_PREPARE
    TRANS_STMT_COMMIT_PREPARED TRANS_STMT_ROLLBACK_PREPARED
ViewCheckOption: NO_CHECK_OPTION LOCAL_CHECK_OPTION CASCADED_CHECK_OPTION
DiscardMode: DISCARD_ALL DISCARD_PLANS DISCARD_SEQUENCES DISCARD_TEMP
ReindexObjectType: REINDEX_OBJECT_INDEX REINDEX_OBJECT_TABLE REINDEX_OBJECT_SCHEMA REINDEX_OBJECT_SYSTEM
    REINDEX_OBJECT_DATABASE
AlterTSConfigType: ALTER_TSCONFIG_ADD_MAPPING ALTER_TSCONFIG_ALTER_MAPPING_FOR_TOKEN
    ALTER_TSCONFIG_REPLACE_DICT ALTER_TSCONFIG_REPLACE_DICT_FOR_TOKEN ALTER_TSCONFIG_DROP_MAPPING
PublicationObjSpecType: PUBLICATIONOBJ_TABLE PUBLICATIONOBJ_TABLES_IN_SCHEMA
    PUBLICATIONOBJ_TABLES_IN_CUR_SCHEMA
AlterPublicationAction: AP_AddObjects AP_DropObjects AP_SetObjects
AlterSubscriptionType: ALTER_SUBSCRIPTION_OPTIONS ALTER_SUBSCRIPTION_CONNECTION
    ALTER_SUBSCRIPTION_SET_PUBLICATION ALTER_SUBSCRIPTION_ADD_PUBLICATION
    ALTER_SUBSCRIPTION_DROP_PUBLICATION ALTER_SUBSCRIPTION_REFRESH ALTER_SUBSCRIPTION_ENABLED
    ALTER_SUBSCRIPTION_SKIP
OverridingKind: OVERRIDING_NOT_SET OVERRIDING_USER_VALUE OVERRIDING_SYSTEM_VALUE
OnCommitAction: ONCOMMIT_NOOP ONCOMMIT_PRESERVE_ROWS ONCOMMIT_DELETE_ROWS ONCOMMIT_DROP
CoercionContext: COERCION_IMPLICIT COERCION_ASSIGNMENT COERCION_PLPGSQL COERCION_EXPLICIT
CoercionForm: COERCE_EXPLICIT_CALL COERCE_EXPLICIT_CAST COERCE_IMPLICIT_CAST COERCE_SQL_SYNTAX
BoolExprType: AND_EXPR OR_EXPR NOT_EXPR
SubLinkType: EXISTS_SUBLINK ALL_SUBLINK ANY_SUBLINK ROWCOMPARE_SUBLINK EXPR_SUBLINK MULTIEXPR_SUBLINK
    ARRAY_SUBLINK
MinMaxOp: IS_GREATEST IS_LEAST
SQLValueFunctionOp: SVFOP_CURRENT_DATE SVFOP_CURRENT_TIME SVFOP_CURRENT_TIME_N SVFOP_CURRENT_TIMESTAMP
    SVFOP_CURRENT_TIMESTAMP_N SVFOP_LOCALTIME SVFOP_LOCALTIME_N SVFOP_LOCALTIMESTAMP
    SVFOP_LOCALTIMESTAMP_N SVFOP_CURRENT_ROLE SVFOP_CURRENT_USER SVFOP_USER SVFOP_SESSION_USER
    SVFOP_CURRENT_CATALOG SVFOP_CURRENT_SCHEMA
XmlExprOp: IS_XMLCONCAT IS_XMLELEMENT IS_XMLFOREST IS_XMLPARSE IS_XMLPI IS_XMLROOT IS_XMLSERIALIZE
    IS_DOCUMENT
XmlOptionType: XMLOPTION_DOCUMENT XMLOPTION_CONTENT
JsonEncoding: JS_ENC_DEFAULT JS_ENC_UTF8 JS_ENC_UTF16 JS_ENC_UTF32
JsonFormatType: JS_FORMAT_DEFAULT JS_FORMAT_JSON JS_FORMAT_JSONB
JsonValueType: JS_TYPE_ANY JS_TYPE_OBJECT JS_TYPE_ARRAY JS_TYPE_SCALAR
JsonWrapper: JSW_UNSPEC JSW_NONE JSW_CONDITIONAL JSW_UNCONDITIONAL
JsonBehaviorType: JSON_BEHAVIOR_NULL JSON_BEHAVIOR_ERROR JSON_BEHAVIOR_EMPTY JSON_BEHAVIOR_TRUE
    JSON_BEHAVIOR_FALSE JSON_BEHAVIOR_UNKNOWN JSON_BEHAVIOR_EMPTY_ARRAY JSON_BEHAVIOR_EMPTY_OBJECT
    JSON_BEHAVIOR_DEFAULT
JsonExprOp: JSON_EXISTS_OP JSON_QUERY_OP JSON_VALUE_OP JSON_TABLE_OP
NullTestType: IS_NULL IS_NOT_NULL
BoolTestType: IS_TRUE IS_NOT_TRUE IS_FALSE IS_NOT_FALSE IS_UNKNOWN IS_NOT_UNKNOWN
MergeMatchKind: MERGE_WHEN_MATCHED MERGE_WHEN_NOT_MATCHED_BY_SOURCE MERGE_WHEN_NOT_MATCHED_BY_TARGET
CmdType: CMD_SELECT CMD_UPDATE CMD_INSERT CMD_DELETE CMD_MERGE CMD_NOTHING
JoinType: JOIN_INNER JOIN_LEFT JOIN_FULL JOIN_RIGHT
OnConflictAction: ONCONFLICT_NONE ONCONFLICT_NOTHING ONCONFLICT_UPDATE
LimitOption: LIMIT_OPTION_DEFAULT LIMIT_OPTION_COUNT LIMIT_OPTION_WITH_TIES
LockClauseStrength: LCS_NONE LCS_FORKEYSHARE LCS_FORSHARE LCS_FORNOKEYUPDATE LCS_FORUPDATE
LockWaitPolicy: LockWaitBlock LockWaitSkip LockWaitError
"""

# Nodes that exist only after parse analysis; the test wants every node of the grammar here or above.
_AFTER_ANALYSIS = """
Var Param Aggref WindowFunc WindowFuncRunCondition SubscriptingRef FuncExpr OpExpr
DistinctExpr NullIfExpr ScalarArrayOpExpr SubPlan AlternativeSubPlan FieldSelect FieldStore RelabelType
CoerceViaIO ArrayCoerceExpr ConvertRowtypeExpr CaseTestExpr ArrayExpr CoerceToDomain CoerceToDomainValue
NextValueExpr TargetEntry RangeTblRef FromExpr OnConflictExpr Query RangeTblEntry RTEPermissionInfo
RangeTblFunction TableSampleClause WithCheckOption SortGroupClause WindowClause RowMarkClause
SetOperationStmt TableFunc CollateExpr RowCompareExpr JsonConstructorExpr JsonExpr JsonTablePath
JsonTablePathScan JsonTableSiblingJoin InferenceElem ReturningExpr InlineCodeBlock CallContext
MergeAction OidList IntList RawStmt PLAssignStmt
"""
AFTER_ANALYSIS: Final = frozenset(_AFTER_ANALYSIS.split())


class Field(NamedTuple):
    """What a field may hold: a plain value, wrapped nodes, one bare node of `type`, or one of `values`."""

    kind: str  # "plain", "nodes", "bare", "enum"
    type: str = ""
    values: frozenset[str] = frozenset()


def _entries(text: str) -> list[tuple[str, list[str]]]:
    """Splits a table into its paragraphs; an indented line continues the one before."""
    entries: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            entries[-1][1].extend(line.split())
        else:
            name, _, fields = line.partition(":")
            entries.append((name, fields.split()))
    return entries


def _field(spec: str, enums: dict[str, frozenset[str]]) -> tuple[str, Field]:
    if spec.endswith("@"):
        return spec[:-1], Field("nodes")
    if "=" in spec:
        name, _, enum = spec.partition("=")
        return name, Field("enum", enum, enums[enum])
    if ":" in spec:
        name, _, type_ = spec.partition(":")
        return name, Field("bare", type_)
    return spec, Field("plain")


ENUMS: Final[dict[str, frozenset[str]]] = {name: frozenset(values) for name, values in _entries(_ENUMS)}
NODES: Final[dict[str, dict[str, Field]]] = {
    name: dict(_field(spec, ENUMS) for spec in specs) | {"location": Field("plain")} for name, specs in _entries(_NODES)
}

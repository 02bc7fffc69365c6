import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { readSqlType } from "./column-type.js";
import { commentOf } from "./comments.js";
import { refuseOption } from "./foreign-option.js";
import { camelCase, clientIdentifier, functionIdentifier } from "./names.js";
import type { GatewayValueOption, SpecOptions } from "./options.js";
import { type Rules, readRules } from "./rules.js";
import { SpecError } from "./spec-error.js";
import { integerRangeOf, type ValueKind, valueKindOf } from "./value-kind.js";

/** Kind of a value on the wire and in TypeScript. */
export type GatewayKind = "string" | "bytes" | "boolean" | "number" | "bigint" | "object" | "list" | "timestamp";

/** Parameter or result of an SQL function that the gateway answers. */
export interface GatewayValue {
  readonly field: DescField;
  /** Name in SQL. */
  readonly name: string;
  /** Name in TypeScript and in the call. */
  readonly property: string;
  readonly comment: string;
  readonly kind: GatewayKind;
  /** SQL type, such as `jsonb`; the type of a payload depends on the function variant. */
  readonly sqlType: string;
  /** True if the value may be NULL. */
  readonly optional: boolean;
  /** True for a list of payloads. */
  readonly repeated: boolean;
  readonly payload: boolean;
  /** True for the type of the payload: sent with the call, not a parameter of the SQL function. */
  readonly payloadType: boolean;
  /**
   * True for the identifier of the message that the caller is handling: sent with the call, not a parameter of the SQL
   * function.
   */
  readonly messageContext: boolean;
  /** True for headers to which the context of the present trace is added. */
  readonly traceContext: boolean;
  /** True if the argument must be written, although it may be NULL. */
  readonly noDefault: boolean;
  /** True for the time limit of the call. */
  readonly timeout: boolean;
  /** Name in the TypeScript client; undefined if the client omits it. */
  readonly clientName: string | undefined;
  /** True if the TypeScript client takes it as an option, although it is required. */
  readonly clientOption: boolean;
  readonly rules: Rules;
}

/** True for a list of texts, which is one value of the call. */
export function isTextList({ sqlType }: Pick<GatewayValue, "sqlType">): boolean {
  return sqlType === "text[]";
}

const jsonTypes: Readonly<Record<string, GatewayKind>> = {
  "google.protobuf.Struct": "object",
  "google.protobuf.ListValue": "list",
};

/** Kinds that a parameter can have. Only functions that the gateway does not answer take timestamps and booleans. */
const parameterKinds: readonly GatewayKind[] = [
  "string",
  "bytes",
  "number",
  "bigint",
  "object",
  "timestamp",
  "boolean",
];

const noOption: GatewayValueOption = {
  payload: false,
  payloadType: false,
  noDefault: false,
  timeout: false,
  sqlType: "",
  messageContext: false,
  traceContext: false,
  clientName: "",
  clientOption: false,
};

/** Reads the values of a request or a response, in the order of their declaration. */
export function readGatewayValues(
  message: DescMessage,
  options: SpecOptions,
  role: "parameter" | "result",
): GatewayValue[] {
  const values = message.fields.map((field) => readValue(field, options));
  for (const [position, value] of values.entries()) {
    if (role === "result") {
      refuseResult(value);
      continue;
    }
    if (value.clientName === undefined || (value.clientOption && value.optional)) {
      throw new SpecError(
        value.field,
        "the client can omit only results, and client_option is for required parameters",
      );
    }
    if (!parameterKinds.includes(value.kind)) {
      throw new SpecError(
        value.field,
        "a parameter is a string, bytes, a bool, an int32, an int64, a google.protobuf.Struct or a google.protobuf.Timestamp",
      );
    }
    const hasDefault = value.optional && !value.noDefault;
    const next = values[position + 1];
    if (hasDefault && next !== undefined && !next.optional && !next.payloadType) {
      throw new SpecError(next.field, "a parameter after one with a default needs a default too: make it optional");
    }
  }
  return values;
}

function refuseResult(value: GatewayValue): void {
  const { payloadType, timeout, noDefault, clientOption, repeated, kind } = value;
  if (payloadType || timeout || noDefault || clientOption || (repeated && kind !== "bigint")) {
    throw new SpecError(
      value.field,
      "only a parameter has a payload type, a timeout, no default, a client option, or is a list of payloads",
    );
  }
  if (Object.keys(value.rules).length > 0) {
    throw new SpecError(value.field, "rules on a result would not be checked");
  }
}

function readValue(field: DescField, options: SpecOptions): GatewayValue {
  if (field.oneof !== undefined || field.fieldKind === "map") {
    throw new SpecError(field, "a parameter or result of a function must not be a map or part of a oneof");
  }
  refuseOption(field, "setting", options.setting(field));
  const option = options.gatewayValue(field) ?? noOption;
  const repeated = field.fieldKind === "list";
  const kind = kindOf(field);
  const column = options.column(field);
  if (column !== undefined && (column.default !== "" || column.generated !== "" || column.type === "bigserial")) {
    throw new SpecError(field, "a parameter or result of a function has no default, generated value or sequence");
  }
  if ((option.payload && kind !== "bytes") || (repeated && !option.payload && kind !== "bigint")) {
    throw new SpecError(
      field,
      "a payload is of type bytes, and only payloads, and an int64 of a result, may be repeated",
    );
  }
  if ((option.payloadType && kind !== "string") || (option.timeout && kind !== "number")) {
    throw new SpecError(field, "a payload type is a string, and a timeout an int32");
  }
  if (option.messageContext && (kind !== "string" || !field.proto.proto3Optional)) {
    throw new SpecError(field, "a message context is an optional string");
  }
  if (option.traceContext && kind !== "object") {
    throw new SpecError(field, "a trace context is added to headers, which are a google.protobuf.Struct");
  }
  if (option.sqlType !== "" && (!["regproc", "text[]"].includes(option.sqlType) || kind !== "string")) {
    throw new SpecError(field, `sql_type "${option.sqlType}" is not regproc or text[], or not on a string`);
  }
  const optional = field.proto.proto3Optional;
  if (option.noDefault && !optional) {
    throw new SpecError(field, "no_default is for optional parameters; the others have none anyway");
  }
  const isJson = kind === "object" || kind === "list";
  const ruleKind: ValueKind = isJson ? "json" : kind;
  return {
    field,
    name: functionIdentifier(field, "name", field.name),
    property: camelCase(field.name),
    comment: commentOf(field),
    kind,
    // As Postgres prints it: an installed function is identified by the types of its parameters.
    sqlType:
      kind === "timestamp"
        ? "timestamp with time zone"
        : option.sqlType !== ""
          ? option.sqlType
          : isJson
            ? "jsonb"
            : readSqlType(field, column?.type ?? ""),
    optional,
    repeated,
    payload: option.payload,
    payloadType: option.payloadType,
    messageContext: option.messageContext,
    traceContext: option.traceContext,
    noDefault: option.noDefault,
    timeout: option.timeout,
    clientName: readClientName(field, option.clientName),
    clientOption: option.clientOption,
    rules: readRules(field, options, {
      kind: ruleKind,
      repeated: repeated || option.sqlType === "text[]",
      range: integerRangeOf(field),
      isParameter: true,
    }),
  };
}

function readClientName(field: DescField, name: string): string | undefined {
  if (name === "") return camelCase(field.name);
  return name === "-" ? undefined : clientIdentifier(field, "client_name", name);
}

function kindOf(field: DescField): GatewayKind {
  const json = field.message === undefined ? undefined : jsonTypes[field.message.typeName];
  const kind = json ?? valueKindOf(field);
  switch (kind) {
    case "string":
    case "bytes":
    case "boolean":
    case "number":
    case "bigint":
    case "object":
    case "list":
    case "timestamp":
      return kind;
    default:
      throw new SpecError(field, `a function cannot take or return ${kind ?? "this"}`);
  }
}

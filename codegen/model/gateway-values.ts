import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { readSqlType } from "./column-type.js";
import { commentOf } from "./comments.js";
import { camelCase, sqlIdentifier } from "./names.js";
import type { SpecOptions } from "./options.js";
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

/** Reads the values of a request or a response, in the order of their declaration. */
export function readGatewayValues(message: DescMessage, options: SpecOptions): GatewayValue[] {
  return message.fields.map((field) => readValue(field, options));
}

/** @throws SpecError if a result has rules */
export function refuseRules(results: readonly GatewayValue[]): void {
  const limited = results.find(({ rules }) => Object.keys(rules).length > 0);
  if (limited !== undefined) throw new SpecError(limited.field, "rules on a result would not be checked");
}

function readValue(field: DescField, options: SpecOptions): GatewayValue {
  const option = options.gatewayValue(field);
  const repeated = field.fieldKind === "list";
  const kind = kindOf(field);
  const column = options.column(field);
  const optional = field.proto.proto3Optional;
  const isJson = kind === "object" || kind === "list";
  const ruleKind: ValueKind = isJson ? "json" : kind;
  return {
    field,
    name: sqlIdentifier(field, "name", field.name),
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
    timeout: option.timeout,
    clientName: option.clientName === "-" ? undefined : option.clientName || camelCase(field.name),
    clientOption: option.clientOption,
    rules: readRules(field, options, {
      kind: ruleKind,
      repeated: repeated || option.sqlType === "text[]",
      range: integerRangeOf(field),
      isParameter: true,
    }),
  };
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

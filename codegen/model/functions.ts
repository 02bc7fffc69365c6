import type { AnyDesc, DescField, DescMethod, DescService } from "@bufbuild/protobuf";
import { type Column, readValueColumns } from "./columns.js";
import { commentOf } from "./comments.js";
import { camelCase, sqlIdentifier } from "./names.js";
import type { SpecOptions, SqlFunctionOption } from "./options.js";
import { knownRole } from "./roles.js";
import type { Rules } from "./rules.js";
import { SpecError } from "./spec-error.js";

/** Methods of one service that are SQL functions. */
export interface FunctionGroup {
  readonly service: DescService;
  readonly comment: string;
  readonly functions: readonly SqlFunction[];
}

/** SQL function of the schema `hawser`. */
export interface SqlFunction {
  readonly method: DescMethod;
  readonly name: string;
  readonly comment: string;
  /** Path of the PL/pgSQL body, relative to the root of the project. */
  readonly bodyFile: string;
  readonly securityDefiner: boolean;
  readonly execute: readonly string[];
  readonly returnsSet: boolean;
  /** Settings that apply while the function runs, such as `enable_seqscan = off`. */
  readonly settings: readonly string[];
  /** True if callers may omit optional parameters. */
  readonly optionalDefaults: boolean;
  /** True for STABLE: all statements of the function see the snapshot of the calling statement. */
  readonly readsOnly: boolean;
  /** Refuses other isolation levels. */
  readonly needsReadCommitted: boolean;
  /** True if the result stays the same for the lifetime of a session. */
  readonly constant: boolean;
  readonly parameters: readonly Parameter[];
  readonly results: readonly Column[];
}

export interface Parameter {
  /** Parameter in SQL, such as `p_sender_name`. */
  readonly column: Column;
  /** Argument in TypeScript, such as `senderName`. */
  readonly argument: string;
}

/** Reads the group of a service; undefined if none of its methods is an SQL function. */
export function readFunctionGroup(service: DescService, options: SpecOptions): FunctionGroup | undefined {
  const functions = service.methods.flatMap((method) => {
    const option = options.sqlFunction(method);
    return option === undefined ? [] : [readFunction(method, option, options)];
  });
  return functions.length === 0 ? undefined : { service, comment: commentOf(service), functions };
}

function readFunction(method: DescMethod, option: SqlFunctionOption, options: SpecOptions): SqlFunction {
  if (method.methodKind !== "unary") {
    throw new SpecError(method, "an SQL function cannot stream; use returns_set for any number of rows");
  }
  const bodyFile = readSqlPath(method, "body_file", option.bodyFile);
  const isExecuted = option.execute.length > 0;
  const parameters = readParameters(method, options, isExecuted);
  if (isExecuted) {
    for (const { column } of parameters) refuseUnlimited({ ...column, sqlType: column.type });
  }
  return {
    method,
    name: sqlIdentifier(method, "function name", option.name),
    comment: commentOf(method),
    bodyFile,
    securityDefiner: option.securityDefiner,
    execute: option.execute.map((role) => knownRole(method, role)),
    returnsSet: option.returnsSet,
    settings: option.settings.map((setting) => readSetting(method, setting)),
    optionalDefaults: option.optionalDefaults,
    readsOnly: option.readsOnly,
    needsReadCommitted: option.needsReadCommitted,
    constant: option.constant,
    parameters,
    results: readValueColumns(method.output, options, false),
  };
}

/** Checks the path of an SQL file. @throws SpecError if the path could lead out of the project */
export function readSqlPath(where: AnyDesc, option: string, path: string): string {
  if (!/^[\w-]+(\/[\w-]+)*\.sql$/.test(path)) {
    throw new SpecError(where, `${option} "${path}" is not a .sql file below the root of the project`);
  }
  return path;
}

/** SQL types whose values have a small, fixed size. */
const shortTypes = /^(smallint|integer|bigint|boolean|timestamptz|timestamp with time zone|xid8|regproc)$/;

/** Requires a limit for a parameter. @throws SpecError if its value can have any length */
export function refuseUnlimited(parameter: {
  readonly field: DescField;
  readonly sqlType: string;
  readonly repeated: boolean;
  readonly rules: Rules;
}): void {
  const { field, rules } = parameter;
  const isShortText = rules.maxBytes !== undefined || rules.in !== undefined;
  const isList = parameter.repeated || parameter.sqlType.endsWith("[]");
  const isShort = shortTypes.test(parameter.sqlType.replace("[]", ""));
  const missing = isList
    ? rules.maxItems === undefined
      ? "max_items"
      : isShort || rules.maxTotalBytes !== undefined
        ? undefined
        : "max_total_bytes"
    : isShort || isShortText
      ? undefined
      : "max_bytes";
  if (missing !== undefined) {
    throw new SpecError(field, `a parameter of a function that roles can call needs a limit: add the rule ${missing}`);
  }
}

function readSetting(method: DescMethod, setting: string): string {
  if (!/^[a-z_]+ = [a-z0-9_.]+$/.test(setting) || /^(search_path|jit) /.test(setting)) {
    throw new SpecError(method, `settings "${setting}" is not of the form "name = value", or is one of all functions`);
  }
  return setting;
}

function readParameters(method: DescMethod, options: SpecOptions, checked: boolean): Parameter[] {
  const parameters = readValueColumns(method.input, options, checked).map((column) => ({
    column,
    argument: camelCase(column.name.replace(/^p_/, "")),
  }));
  for (const [position, { column, argument }] of parameters.entries()) {
    if (parameters.findIndex((other) => other.argument === argument) !== position) {
      throw new SpecError(column.field, `two parameters of ${method.name} are named "${argument}" without their p_`);
    }
  }
  return parameters;
}

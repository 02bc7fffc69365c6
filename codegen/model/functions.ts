import type { AnyDesc, DescField, DescMethod, DescService } from "@bufbuild/protobuf";
import { type Column, readValueColumns } from "./columns.js";
import { commentOf } from "./comments.js";
import { camelCase, functionIdentifier } from "./names.js";
import type { SpecOptions, SqlFunctionOption } from "./options.js";
import { knownRole } from "./roles.js";
import type { Rules } from "./rules.js";
import { SpecError } from "./spec-error.js";

/** The methods of one service that are SQL functions. */
export interface FunctionGroup {
  readonly service: DescService;
  readonly comment: string;
  readonly functions: readonly SqlFunction[];
}

/** An SQL function of the schema `hawser`. */
export interface SqlFunction {
  readonly method: DescMethod;
  readonly name: string;
  readonly comment: string;
  /** Where the PL/pgSQL body is, relative to the root of the project. */
  readonly bodyFile: string;
  readonly securityDefiner: boolean;
  readonly execute: readonly string[];
  readonly returnsSet: boolean;
  /** Settings while it runs, such as `enable_seqscan = off`. */
  readonly settings: readonly string[];
  /** Its optional parameters may be left out. */
  readonly optionalDefaults: boolean;
  /** All its statements see the database as the one does that calls it. */
  readonly readsOnly: boolean;
  /** Its result stays the same as long as a session lives. */
  readonly constant: boolean;
  readonly parameters: readonly Parameter[];
  readonly results: readonly Column[];
}

export interface Parameter {
  /** The parameter in SQL, such as `p_sender_name`. */
  readonly column: Column;
  /** The argument in TypeScript, such as `senderName`. */
  readonly argument: string;
}

/** The group of a service; undefined if none of its methods is an SQL function. */
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
  const results = readValueColumns(method.output, options, false);
  if (results.length === 0) {
    throw new SpecError(method, `${method.output.name} has no field; a function returns at least one column`);
  }
  const isExecuted = option.execute.length > 0;
  const parameters = readParameters(method, results, options, isExecuted);
  if (option.optionalDefaults) refuseDefaultBefore(parameters);
  if (isExecuted) {
    for (const { column } of parameters) refuseUnlimited({ ...column, sqlType: column.type });
  }
  return {
    method,
    name: functionIdentifier(method, "function name", option.name),
    comment: commentOf(method),
    bodyFile,
    securityDefiner: option.securityDefiner,
    execute: option.execute.map((role) => knownRole(method, role)),
    returnsSet: option.returnsSet,
    settings: option.settings.map((setting) => readSetting(method, setting)),
    optionalDefaults: option.optionalDefaults,
    readsOnly: option.readsOnly,
    constant: option.constant,
    parameters,
    results,
  };
}

/** The path of a file with SQL. @throws SpecError if it may lead out of the project */
export function readSqlPath(where: AnyDesc, option: string, path: string): string {
  if (!/^[\w-]+(\/[\w-]+)*\.sql$/.test(path)) {
    throw new SpecError(where, `${option} "${path}" is not a .sql file below the root of the project`);
  }
  return path;
}

/** SQL types whose values all take the same few bytes. */
const shortTypes = /^(smallint|integer|bigint|boolean|timestamptz|timestamp with time zone|xid8|regproc)$/;

/** Checks that a parameter has a limit. @throws SpecError if it can be of any length */
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
    throw new SpecError(field, `a parameter that roles give has a limit: add the rule ${missing}`);
  }
}

function refuseDefaultBefore(parameters: readonly Parameter[]): void {
  const first = parameters.findIndex(({ column }) => column.nullable);
  const later = first < 0 ? undefined : parameters.slice(first).find(({ column }) => !column.nullable);
  if (later !== undefined) {
    throw new SpecError(
      later.column.field,
      "a parameter behind one with a default needs a default too: make it optional",
    );
  }
}

function readSetting(method: DescMethod, setting: string): string {
  if (!/^[a-z_]+ = [a-z0-9_.]+$/.test(setting) || setting.startsWith("search_path ")) {
    throw new SpecError(method, `settings "${setting}" is not of the form "name = value", or is the search_path`);
  }
  return setting;
}

function readParameters(
  method: DescMethod,
  results: readonly Column[],
  options: SpecOptions,
  checked: boolean,
): Parameter[] {
  const parameters = readValueColumns(method.input, options, checked).map((column) => ({
    column,
    argument: camelCase(column.name.replace(/^p_/, "")),
  }));
  for (const [position, { column, argument }] of parameters.entries()) {
    // In PL/pgSQL parameters and result columns are variables of one block.
    if (results.some((result) => result.name === column.name)) {
      throw new SpecError(column.field, `a result of ${method.name} has the same name; begin the parameter's with p_`);
    }
    if (parameters.findIndex((other) => other.argument === argument) !== position) {
      throw new SpecError(column.field, `two parameters of ${method.name} are named "${argument}" without their p_`);
    }
  }
  return parameters;
}

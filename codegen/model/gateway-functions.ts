import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { commentOf } from "./comments.js";
import { readSqlPath, refuseUnlimited } from "./functions.js";
import { type GatewayValue, readGatewayValues, refuseRules } from "./gateway-values.js";
import { sqlIdentifier } from "./names.js";
import type { GatewayFunctionOption, SpecOptions } from "./options.js";
import { knownRole } from "./roles.js";
import { SpecError } from "./spec-error.js";

/** Methods of one service that the gateway answers. */
export interface GatewayGroup {
  readonly service: DescService;
  readonly comment: string;
  readonly families: readonly GatewayFamily[];
}

/** SQL types of payloads, by the part of a function's name that selects the type. */
export const payloadTypes = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;

type PayloadType = keyof typeof payloadTypes;

/** Method of the gateway: one SQL function, or one for each type of payload. */
export interface GatewayFamily {
  readonly method: DescMethod;
  readonly comment: string;
  /**
   * Name and aliases as the spec has them. They contain `{T}` for the type of the payload, unless the function is
   * overloaded.
   */
  readonly names: readonly string[];
  readonly variants: readonly GatewayVariant[];
  /** File of a PL/pgSQL body; undefined if the function only calls the gateway. */
  readonly bodyFile: string | undefined;
  /** True if Postgres answers the call itself, without the gateway. */
  readonly local: boolean;
  /** True if a call may change something in NATS, so that its outcome is unknown after a lost answer. */
  readonly changes: boolean;
  /** True if the function runs with the rights and the search path of its caller. */
  readonly invoker: boolean;
  /** True if the function is in the schema `hawser` and only other functions call it. */
  readonly internal: boolean;
  /**
   * Roles that may execute a function of the schema `hawser`, which is created together with its tables; empty for a
   * function in the schema of the NATS functions.
   */
  readonly execute: readonly string[];
  readonly parameters: readonly GatewayValue[];
  readonly results: readonly GatewayValue[];
  readonly returns: "nothing" | "value" | "row" | "rows";
  /** Parameter that is a list of payloads, one for each message. */
  readonly batch: GatewayValue | undefined;
  /** Method of the TypeScript client that calls the function; undefined if there is none. */
  readonly clientMethod: string | undefined;
}

/** SQL function of a family, under its name and aliases. */
export interface GatewayVariant {
  /** Undefined if the method has a single function. */
  readonly payloadType: PayloadType | undefined;
  /** Name and aliases. */
  readonly names: readonly string[];
}

/** True if a function is created with the tables of the schema `hawser`, and not with the functions that reach NATS. */
export function isMadeWithTables({ execute }: GatewayFamily): boolean {
  return execute.length > 0;
}

/** Names that are unique in the schema: overloads include their parameter types. */
export function distinctNames({ names, variants, parameters }: GatewayFamily): string[] {
  const isOverloaded = variants.length > 1 && names.every((name) => !name.includes("{T}"));
  return variants.flatMap((variant) =>
    variant.names.map((name) => {
      const types = parameters.map(({ payload, sqlType }) => (payload ? variant.payloadType : sqlType));
      return isOverloaded ? `${name}(${types.join(", ")})` : name;
    }),
  );
}

/** Reads the group of a service; undefined if the gateway answers none of its methods. */
export function readGatewayGroup(service: DescService, options: SpecOptions): GatewayGroup | undefined {
  const families = service.methods.flatMap((method) => {
    const option = options.gatewayFunction(method);
    return option === undefined ? [] : [readFamily(method, option, options)];
  });
  return families.length === 0 ? undefined : { service, comment: commentOf(service), families };
}

function readFamily(method: DescMethod, option: GatewayFunctionOption, options: SpecOptions): GatewayFamily {
  const parameters = readGatewayValues(method.input, options);
  const results = readGatewayValues(method.output, options);
  refuseRules(results);
  const typed = [...parameters, ...results].some(({ payload, payloadType }) => payload || payloadType);
  const names = [option.name, ...option.alias];
  if (option.local === (option.changes !== undefined)) {
    throw new SpecError(
      method,
      "a function that is not local needs changes: true if a call may change something in NATS",
    );
  }
  if (!option.internal) {
    for (const value of parameters.filter(({ payloadType }) => !payloadType)) refuseUnlimited(value);
  }
  return {
    method,
    comment: commentOf(method),
    names,
    variants: variantsOf(method, names, typed),
    bodyFile: option.bodyFile === "" ? undefined : readSqlPath(method, "body_file", option.bodyFile),
    local: option.local,
    changes: option.changes === true,
    internal: option.internal,
    execute: option.execute.map((role) => knownRole(method, role)),
    invoker: option.invoker,
    parameters,
    results,
    returns: returnsOf(method, results),
    batch: parameters.find(({ repeated }) => repeated),
    clientMethod: option.method === "" || option.method === "-" ? undefined : option.method,
  };
}

function returnsOf(method: DescMethod, results: readonly GatewayValue[]): GatewayFamily["returns"] {
  if (method.methodKind === "server_streaming") {
    return "rows";
  }
  return results.length === 0 ? "nothing" : results.length === 1 ? "value" : "row";
}

function variantsOf(method: DescMethod, names: readonly string[], typed: boolean): GatewayVariant[] {
  const types = typed ? (Object.keys(payloadTypes) as PayloadType[]) : [undefined];
  return types.map((payloadType) => ({
    payloadType,
    names: names.map((name) => sqlIdentifier(method, "function name", name.replace("{T}", payloadType ?? ""))),
  }));
}

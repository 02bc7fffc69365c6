import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { commentOf } from "./comments.js";
import { type GatewayValue, readGatewayValues } from "./gateway-values.js";
import { sqlIdentifier } from "./names.js";
import type { GatewayFunctionOption, SpecOptions } from "./options.js";
import { SpecError } from "./spec-error.js";

/** The methods of one service that the gateway answers. */
export interface GatewayGroup {
  readonly service: DescService;
  readonly comment: string;
  readonly families: readonly GatewayFamily[];
}

/** The types of payload, by the name they have in a function's name, and their SQL types. */
export const payloadTypes = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;

export type PayloadType = keyof typeof payloadTypes;

/** One method: one function, or one for each type of payload. */
export interface GatewayFamily {
  readonly method: DescMethod;
  readonly comment: string;
  readonly variants: readonly GatewayVariant[];
  /** The file of a PL/pgSQL body; undefined where the function only calls the gateway. */
  readonly bodyFile: string | undefined;
  /** No handler answers it. */
  readonly local: boolean;
  /** After a lost answer the outcome is unknown. */
  readonly changes: boolean;
  /** In the schema `hawser`, for the other functions alone. */
  readonly internal: boolean;
  readonly parameters: readonly GatewayValue[];
  readonly results: readonly GatewayValue[];
  readonly returns: "nothing" | "value" | "row" | "rows";
  /** The parameter that is a list of payloads, one for each message. */
  readonly batch: GatewayValue | undefined;
}

/** One SQL function, under all its names. */
export interface GatewayVariant {
  /** Undefined for a function that is there once. */
  readonly payloadType: PayloadType | undefined;
  /** Its name and its aliases. */
  readonly names: readonly string[];
}

/** The group of a service; undefined if the gateway answers none of its methods. */
export function readGatewayGroup(service: DescService, options: SpecOptions): GatewayGroup | undefined {
  const families = service.methods.flatMap((method) => {
    const option = options.gatewayFunction(method);
    return option === undefined ? [] : [readFamily(method, option, options)];
  });
  return families.length === 0 ? undefined : { service, comment: commentOf(service), families };
}

function readFamily(method: DescMethod, option: GatewayFunctionOption, options: SpecOptions): GatewayFamily {
  if (method.methodKind !== "unary" && method.methodKind !== "server_streaming") {
    throw new SpecError(method, "an SQL function takes one request; only its answer may be a stream, of rows");
  }
  if (options.sqlFunction(method) !== undefined) {
    throw new SpecError(method, "a method is either sql_function or gateway_function");
  }
  const parameters = readGatewayValues(method.input, options, "parameter");
  const results = readGatewayValues(method.output, options, "result");
  const batches = parameters.filter(({ repeated }) => repeated);
  const typed = [...parameters, ...results].some(({ payload, payloadType }) => payload || payloadType);
  const hasVariants = option.name.includes("{T}");
  if (typed !== hasVariants) {
    throw new SpecError(method, "a function has {T} in its name if, and only if, it has a payload");
  }
  if (batches.length > 1 || results.some(({ repeated }) => repeated)) {
    throw new SpecError(method, "a function has one list of payloads at most, and returns rows by a stream");
  }
  if (option.local && option.bodyFile === "") {
    throw new SpecError(method, "a local function needs body_file");
  }
  return {
    method,
    comment: commentOf(method),
    variants: variantsOf(method, option, hasVariants),
    bodyFile: option.bodyFile || undefined,
    local: option.local,
    changes: option.changes,
    internal: option.internal,
    parameters,
    results,
    returns: returnsOf(method, results),
    batch: batches[0],
  };
}

function returnsOf(method: DescMethod, results: readonly GatewayValue[]): GatewayFamily["returns"] {
  if (method.methodKind === "server_streaming") {
    return "rows";
  }
  return results.length === 0 ? "nothing" : results.length === 1 ? "value" : "row";
}

function variantsOf(method: DescMethod, { name, alias }: GatewayFunctionOption, hasVariants: boolean) {
  const types = hasVariants ? (Object.keys(payloadTypes) as PayloadType[]) : [undefined];
  return types.map((payloadType) => ({
    payloadType,
    names: [name, ...alias].map((one) => sqlIdentifier(method, "function name", one.replace("{T}", payloadType ?? ""))),
  }));
}

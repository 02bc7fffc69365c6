/**
 * Every argument of every SQL function that roles may execute, with values at its limit and one byte, or one element, above
 * it: as the spec says it, so that a new function has its place here.
 */
import type { Rules } from "../../../codegen/model/rules.js";
import type { Spec } from "../../../codegen/model/spec.js";
import { compileProject, generated, requestFor } from "../../codegen/support/request.js";

/** A limit of one argument. */
export interface LimitedCall {
  /** In a test's name: `nats_put_text(data): 67108864 bytes`. */
  readonly what: string;
  readonly fn: string;
  readonly argument: string;
  /** Calls, with the argument above the limit and at it. */
  readonly over: string;
  readonly at: string;
  /** How many bytes have to be made for it. */
  readonly bytes: number;
  /** Others differ from it by the type of the payload alone. */
  readonly isFirstOfItsKind: boolean;
}

/** Values of more bytes are the slow tier's. */
export const quickBytes = 2 ** 17;

/** A parameter as SQL has it. */
export interface Given {
  readonly name: string;
  /** The type of the value or, of a list, of an element. */
  readonly type: string;
  readonly repeated: boolean;
  readonly rules: Rules;
}

interface LimitedFunction {
  readonly name: string;
  readonly parameters: readonly Given[];
  readonly isFirstOfItsKind: boolean;
}

const payloadTypes = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;

/** The spec of the project. */
export async function projectSpec(): Promise<Spec> {
  const descriptors = await compileProject();
  const files = descriptors.map(({ name }) => name).filter((name) => name.startsWith("hawser/"));
  let spec: Spec | undefined;
  await generated(requestFor(descriptors, files), (read) => {
    spec = read;
    return [];
  });
  return spec!;
}

/** The functions that roles may execute. */
export function limitedFunctions(spec: Spec): LimitedFunction[] {
  const ofSchema = spec.files.flatMap(({ functionGroups }) => functionGroups.flatMap(({ functions }) => functions));
  const families = spec.files.flatMap(({ gatewayGroups }) => gatewayGroups.flatMap((group) => group.families));
  return [
    ...ofSchema
      .filter(({ execute }) => execute.length > 0)
      .map(({ name, parameters }) => ({
        name: `hawser.${name}`,
        isFirstOfItsKind: true,
        parameters: parameters.map(({ column: { name: parameter, type, repeated, rules } }) => ({
          name: parameter,
          type,
          repeated,
          rules,
        })),
      })),
    ...families
      .filter(({ internal }) => !internal)
      .flatMap(({ variants, parameters, execute }) =>
        variants.flatMap(({ names, payloadType }, nth) =>
          names.map((name) => ({
            name: execute.length > 0 ? `hawser.${name}` : name,
            isFirstOfItsKind: nth === 0,
            parameters: parameters
              .filter((one) => !one.payloadType && !one.messageContext)
              .map(({ name: parameter, payload, sqlType, repeated, rules }) => ({
                name: parameter,
                type: payload && payloadType !== undefined ? payloadTypes[payloadType] : sqlType.replace("[]", ""),
                repeated: repeated || sqlType.endsWith("[]"),
                rules,
              })),
          })),
        ),
      ),
  ];
}

/** What can be of any length. */
export const isLong = (type: string): boolean =>
  /^(text|bytea|jsonb?|pg_snapshot|int8multirange)$/.test(type) || type.endsWith("[]");

/** The limits of all functions. */
export function limitedCalls(spec: Spec): LimitedCall[] {
  return limitedFunctions(spec).flatMap((fn) =>
    fn.parameters.flatMap((parameter) =>
      limitsOf(parameter).map(({ limit, bytes, over, at }) => ({
        what: `${fn.name}(${parameter.name}): ${limit}`,
        fn: fn.name,
        argument: parameter.name,
        over: callOf(fn, parameter, over),
        at: callOf(fn, parameter, at),
        bytes,
        isFirstOfItsKind: fn.isFirstOfItsKind,
      })),
    ),
  );
}

/** What the other arguments are, where NULL is refused before anything else is looked at. */
const others: Readonly<Record<string, string>> = { subject: "'limits.a'", topic: "'t'" };
const payloads: Readonly<Record<string, string>> = {
  text: "'x'",
  json: "'1'::json",
  jsonb: "'1'::jsonb",
  bytea: "'x'::bytea",
};

/** A call with one argument. */
export function callOf({ name, parameters }: LimitedFunction, argument: Given, literal: string): string {
  const values = parameters.map((one) => {
    if (one === argument) return literal;
    if (one.name === "payload" && one.type in payloads) return payloads[one.type];
    if (one.name === "payloads" && one.type in payloads) return `ARRAY[${payloads[one.type]}]`;
    return others[one.name] ?? `NULL::${one.type}${one.repeated ? "[]" : ""}`;
  });
  return `SELECT * FROM ${name}(${values.join(", ")})`;
}

interface Limit {
  readonly limit: string;
  readonly bytes: number;
  readonly over: string;
  readonly at: string;
}

function limitsOf({ type, repeated, rules }: Given): Limit[] {
  if (repeated) return listLimits(type, rules);
  if (!isLong(type)) return [];
  const { maxBytes } = rules;
  // One of some words, all of them short.
  if (maxBytes === undefined) return [];
  if (type === "jsonb" && rules.maxValueBytes !== undefined) return headerLimits(rules);
  return [
    {
      limit: `${maxBytes} bytes`,
      bytes: maxBytes,
      over: literalOf(type, maxBytes, true),
      at: literalOf(type, maxBytes, false),
    },
  ];
}

/** A value of so many bytes, or hardly less, or of one more. */
function literalOf(type: string, bytes: number, isOver: boolean): string {
  const length = bytes + (isOver ? 1 : 0);
  switch (type) {
    case "bytea":
      return `convert_to(repeat('x', ${length}), 'UTF8')`;
    case "json":
    case "jsonb":
      return `('"' || repeat('x', ${length - 2}) || '"')::${type}`;
    case "pg_snapshot": {
      // `1:9999999:` and xids of seven digits.
      const count = Math.floor((bytes - 9) / 8) + (isOver ? 1 : 0);
      return `(SELECT ('1:9999999:' || string_agg(n::text, ',' ORDER BY n))::pg_snapshot FROM generate_series(1000000, ${999_999 + count}) AS n)`;
    }
    case "int8multirange": {
      // Ranges of seven digits: `[1000000,1000001)`.
      const count = Math.floor((bytes - 1) / 18) + (isOver ? 1 : 0);
      return `(SELECT range_agg(int8range(1000000 + 2 * n, 1000001 + 2 * n)) FROM generate_series(0, ${count - 1}) AS n)`;
    }
    default:
      return `repeat('x', ${length})`;
  }
}

function listLimits(type: string, { maxItems, maxItemBytes, maxTotalBytes }: Rules): Limit[] {
  const element = type === "boolean" ? "true" : /int/.test(type) ? `1::${type}` : literalOf(type, 3, false);
  const list = (count: number, bytes: number, last: number) =>
    `array_append(array_fill(${literalOf(type, bytes, false)}, ARRAY[${count}]), ${literalOf(type, last, false)})`;
  const most = maxItemBytes ?? Math.ceil((maxTotalBytes ?? 0) / 2);
  const full = Math.floor((maxTotalBytes ?? 0) / most) - 1;
  const rest = (maxTotalBytes ?? 0) - full * most;
  return [
    ...(maxItems === undefined
      ? []
      : [
          {
            limit: `${maxItems} elements`,
            bytes: 4 * maxItems,
            over: `array_fill(${element}, ARRAY[${maxItems + 1}])`,
            at: `array_fill(${element}, ARRAY[${maxItems}])`,
          },
        ]),
    ...(maxItemBytes === undefined
      ? []
      : [
          {
            limit: `${maxItemBytes} bytes in an element`,
            bytes: maxItemBytes,
            over: `ARRAY[${literalOf(type, maxItemBytes, true)}]`,
            at: `ARRAY[${literalOf(type, maxItemBytes, false)}]`,
          },
        ]),
    // As many elements as there may be cannot be longer than all of them.
    ...(maxTotalBytes === undefined || full < 1 || full + 2 > (maxItems ?? Number.POSITIVE_INFINITY)
      ? []
      : [
          {
            limit: `${maxTotalBytes} bytes in all`,
            bytes: maxTotalBytes,
            // All but the last two are as long as one may be.
            over: `${list(full, most, rest - 4).replace("array_append(", "array_append(array_append(")}, ${literalOf(type, 5, false)})`,
            at: `${list(full, most, rest - 4).replace("array_append(", "array_append(array_append(")}, ${literalOf(type, 4, false)})`,
          },
        ]),
  ];
}

function headerLimits({ maxBytes, maxItems, maxNameBytes, maxValueBytes }: Rules): Limit[] {
  const many = (count: number) => `(SELECT jsonb_object_agg('h' || n, 'x') FROM generate_series(1, ${count}) AS n)`;
  const longest = maxValueBytes!;
  // `{"x": ["…", "…"]}`
  const long = (bytes: number) => {
    const count = Math.ceil((bytes - 7) / (longest + 4));
    const last = bytes - 7 - 4 * count - longest * (count - 1);
    return `jsonb_build_object('x', (SELECT jsonb_agg(repeat('x', ${longest})) FROM generate_series(1, ${count - 1})) || to_jsonb(repeat('x', ${last})))`;
  };
  const fits = (maxBytes! - 7) / (longest + 4) < maxItems!;
  return [
    ...(fits ? [{ limit: `${maxBytes} bytes`, bytes: maxBytes!, over: long(maxBytes! + 1), at: long(maxBytes!) }] : []),
    { limit: `${maxItems} values`, bytes: 16 * maxItems!, over: many(maxItems! + 1), at: many(maxItems!) },
    {
      limit: `${maxNameBytes} bytes in a name`,
      bytes: maxNameBytes!,
      over: `jsonb_build_object(repeat('x', ${maxNameBytes! + 1}), 'x')`,
      at: `jsonb_build_object(repeat('x', ${maxNameBytes}), 'x')`,
    },
    {
      limit: `${longest} bytes in a value`,
      bytes: longest,
      over: `jsonb_build_object('x', repeat('x', ${longest + 1}))`,
      at: `jsonb_build_object('x', repeat('x', ${longest}))`,
    },
  ];
}

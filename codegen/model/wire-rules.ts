/**
 * Rules of messages that are sent. They are those of `buf.validate`, so that protovalidate enforces them in every
 * language; the ones here are those that the generated TypeScript enforces, too. Rules in CEL are rules of a message,
 * which TypeScript checks by hand.
 */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { isReflectList, isReflectMessage, type ReflectMessage } from "@bufbuild/protobuf/reflect";
import type { SpecOptions } from "./options.js";
import { count, defined, type Rules } from "./rules.js";
import { SpecError } from "./spec-error.js";
import { type IntegerRange, isSafeInteger, specTypeOf, type ValueKind } from "./value-kind.js";

type Given = ReadonlyMap<string, unknown>;

/**
 * Reads and checks the rules of a field.
 *
 * @throws SpecError for a rule that TypeScript does not enforce, and for a field that TypeScript limits without a rule
 */
export function readWireRules(
  field: DescField,
  options: SpecOptions,
  {
    kind,
    repeated,
    range,
  }: {
    readonly kind: ValueKind | undefined;
    readonly repeated: boolean;
    readonly range: IntegerRange | undefined;
  },
): Rules {
  if (options.rules(field) !== undefined) {
    throw new SpecError(
      field,
      "the option rules has no meaning here; messages that are sent have rules of buf.validate",
    );
  }
  const option = options.wireRules(field);
  const given: Given = new Map(option === undefined ? [] : rulesIn(option));
  const allowed = allowedRules(field, kind, repeated);
  const foreign = [...given.keys()].find((name) => !allowed.includes(name));
  if (foreign !== undefined) {
    const takes = allowed.length === 0 ? "takes no rules" : `takes ${allowed.join(", ")}`;
    throw new SpecError(field, `rule ${foreign} is not generated for ${specTypeOf(field)}, which ${takes}`);
  }
  const countOf = (name: string) => count(given.get(name) as bigint | undefined);
  const type = typeName(field);
  if (repeated) return defined({ minItems: countOf("repeated.min_items"), maxItems: countOf("repeated.max_items") });
  switch (kind) {
    case "string":
      return given.size === 0 ? {} : textRules(field, given, options);
    case "bytes": {
      const bytes = countOf("bytes.len");
      return defined({ minBytes: countOf("bytes.min_len") ?? bytes, maxBytes: countOf("bytes.max_len") ?? bytes });
    }
    case "enum":
      return given.size === 0 ? {} : enumRules(field, given);
    case "number":
    case "bigint":
      return rangeRules(field, given, type, range!);
    default:
      return given.get("required") === true ? { required: true } : {};
  }
}

/** Reads the words of the rules between fields. @throws SpecError for a rule that is not in CEL, or has no words */
export function readMessageRules(message: DescMessage, options: SpecOptions): string[] {
  const rules = options.messageRules(message);
  if (rules === undefined) return [];
  if (rules.oneof.length > 0)
    throw new SpecError(message, "rule oneof is not generated; use a oneof, or a rule in CEL");
  return rules.cel.map(({ message: words }) => {
    if (!words?.includes(" must ")) throw new SpecError(message, 'a rule in CEL needs a message: "… must …"');
    return words;
  });
}

/** Rules by their names in protovalidate: `string.min_bytes`. */
function rulesIn(option: ReflectMessage, prefix = ""): [name: string, value: unknown][] {
  return option.fields.flatMap((field): [string, unknown][] => {
    if (!option.isSet(field)) return [];
    const value: unknown = option.get(field);
    const name = `${prefix}${field.name}`;
    if (isReflectMessage(value)) return rulesIn(value, `${name}.`);
    return [[name, isReflectList(value) ? [...value] : value]];
  });
}

function allowedRules(field: DescField, kind: ValueKind | undefined, repeated: boolean): string[] {
  if (repeated) return ["repeated.min_items", "repeated.max_items"];
  switch (kind) {
    case "string":
      return ["string.min_bytes", "string.max_bytes", "string.pattern", "string.not_contains"];
    case "bytes":
      return ["bytes.len", "bytes.min_len", "bytes.max_len"];
    case "enum":
      return ["enum.defined_only", "enum.not_in"];
    case "number":
    case "bigint":
      return [`${typeName(field)}.gte`, `${typeName(field)}.lte`];
    case "message":
    case "timestamp":
      return ["required"];
    default:
      return [];
  }
}

function typeName({ scalar }: DescField): string {
  return scalar === undefined ? "" : ScalarType[scalar].toLowerCase();
}

/**
 * Rules of a text. One with a pattern has the limits and the pattern of rules with a name, which say in words what the
 * pattern means: names and headers are checked in Postgres, too.
 */
function textRules(field: DescField, given: Given, options: SpecOptions): Rules {
  if (given.get("string.not_contains") !== "\0") {
    throw new SpecError(
      field,
      'TypeScript refuses NUL in a text with rules; give the rule string.not_contains: "\\000"',
    );
  }
  const minBytes = given.get("string.min_bytes") as bigint | undefined;
  const maxBytes = given.get("string.max_bytes") as bigint | undefined;
  const limits = defined({ minBytes: count(minBytes), maxBytes: count(maxBytes) });
  const pattern = given.get("string.pattern") as string | undefined;
  if (pattern === undefined) return limits;
  // RE2 has no \u, and Postgres another \x.
  const source = pattern.replace(/\\x([0-9a-f]{2})/g, "\\u00$1");
  const named = [...options.namedRules.values()].find(
    ({ rules }) => rules?.pattern === source && rules.minBytes === minBytes && rules.maxBytes === maxBytes,
  );
  if (named === undefined) {
    throw new SpecError(
      field,
      `rule string.pattern: no named rules have these limits and the pattern "${source}"; add some, which say what it means`,
    );
  }
  return { ...limits, pattern: { source, means: named.rules!.patternMeans }, named: named.name };
}

function enumRules(field: DescField, given: Given): Rules {
  const excluded = new Set((given.get("enum.not_in") ?? []) as number[]);
  const numbers = field.enum!.values.map(({ number }) => number).filter((number) => !excluded.has(number));
  const [min, max] = [Math.min(...numbers), Math.max(...numbers)];
  if (given.get("enum.defined_only") !== true || max - min >= new Set(numbers).size) {
    throw new SpecError(
      field,
      "rules of an enum are enum.defined_only, and enum.not_in for its least or greatest numbers",
    );
  }
  return { min: BigInt(min), max: BigInt(max) };
}

function rangeRules(field: DescField, given: Given, type: string, range: IntegerRange): Rules {
  const limit = (name: string): bigint | undefined => {
    const value = given.get(`${type}.${name}`) as number | bigint | undefined;
    return value === undefined ? undefined : BigInt(value);
  };
  const [min, max] = [limit("gte"), limit("lte")];
  if (isSafeInteger(field) && (max === undefined || max > range.max)) {
    throw new SpecError(field, `jstype = JS_NUMBER limits the field; give the rule ${type}.lte: at most ${range.max}`);
  }
  return defined({ min, max });
}

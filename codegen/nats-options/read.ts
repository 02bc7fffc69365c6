import { type AnySchema, Ajv2020 as Validator } from "ajv/dist/2020.js";
import type {
  OptionEntry,
  OptionRule,
  SetCondition,
  ValueCondition,
} from "../../src/nats/connections/server-options.js";
import { patternProblem } from "../../src/protobuf/typed/pattern.js";
import { SchemaError } from "../model/spec-error.js";

/** Options schema, with all references resolved. */
export interface OptionsModel {
  /** Path of the schema's file, relative to the root of the project. */
  readonly file: string;
  readonly title: string;
  readonly description: string;
  /** Options, in the order of the schema. */
  readonly options: readonly Option[];
  /** Rules, in the order in which they are reported. */
  readonly rules: readonly Rule[];
  /** Authentication modes: the first mode whose options are all set is used; the last requires none. */
  readonly modes: readonly AuthMode[];
}

export interface Option extends OptionEntry, ValueCondition {
  readonly name: string;
  readonly type: OptionEntry["type"];
  readonly description: string;
  /** True for a credential, which is also allowed in a user mapping. */
  readonly credential: boolean;
  readonly writeOnly?: boolean;
  readonly "x-remedy": string;
  readonly "x-pattern-means"?: string;
  readonly "x-connection"?: boolean;
}

/** Rule over one option or several; only the latter have a description and the options that they are about. */
export interface Rule extends OptionRule {
  readonly description?: string;
  /** True if the rule applies only to the combined options of server and user mapping. */
  readonly wholeOnly?: boolean;
}

interface AuthMode {
  readonly mode: string;
  /** Options that select the mode, if all are set. */
  readonly requires: readonly string[];
  readonly description: string;
}

interface SchemaFile {
  readonly title: string;
  readonly description: string;
  readonly $defs?: Readonly<Record<string, object>>;
  readonly properties: Readonly<Record<string, Omit<Option, "name" | "credential" | "hidden">>>;
  readonly dependentRequired?: Readonly<Record<string, readonly string[]>>;
  readonly allOf?: readonly (SetCondition & {
    readonly $comment?: string;
    readonly description: string;
    readonly "x-whole-only"?: boolean;
    readonly "x-violation": {
      readonly option: string;
      readonly kind: "missing" | "conflict";
      readonly message: string;
      readonly hint: string;
    };
  })[];
  readonly "x-auth-priority": readonly AuthMode[];
}

/** SQLSTATEs of SQL/MED for the kinds of violations. */
export const sqlstates = { unknown: "HV00D", value: "HV024", missing: "HV002", conflict: "HV024" } as const;

/**
 * Reads the options schema.
 *
 * @param text the schema's JSON text. Biome refuses a key that is written twice.
 * @param file path relative to the root of the project, for messages and head lines
 * @throws SchemaError at the first mistake, with the file and the element
 */
export function readOptionsSchema(text: string, file: string): OptionsModel {
  const schema = resolved(text, file);
  const names = Object.keys(schema.properties);
  refuse(metaSchema(names), schema, file);
  const { title, description, properties, "x-auth-priority": modes } = schema;
  const credentials = new Set(modes.flatMap(({ requires }) => requires));
  const options = Object.entries(properties).map(([name, option]): Option => {
    const credential = credentials.has(name);
    // Users easily write a secret into the neighbouring option, such as the seed itself as `nkey_seed_path`.
    return { ...option, name, credential, hidden: credential || option.writeOnly === true || name.endsWith("_path") };
  });
  for (const { name, pattern, default: value } of options) {
    const problem = pattern === undefined ? undefined : patternProblem(pattern);
    if (problem !== undefined) throw new SchemaError(file, `/properties/${name}/pattern`, problem);
    if (value !== undefined) refuse(properties[name]!, value, file, `/properties/${name}/default`);
  }
  refuseModes(modes, file);
  const rules = [
    ...options.map((option) => valueRule(option, { type: option.type }, typeRule(option))),
    ...rulesOverSeveral(schema, names),
    ...options.flatMap(limits),
  ];
  return { file, title, description, options, rules, modes };
}

/** The schema with each `$ref` to one of `$defs` resolved; the option's own keywords take precedence. */
function resolved(text: string, file: string): SchemaFile {
  let schema: SchemaFile;
  try {
    schema = JSON.parse(text);
  } catch (error) {
    throw new SchemaError(file, "", `is not JSON: ${(error as Error).message}`);
  }
  const written = Object.entries(schema?.properties ?? {});
  if (written.length === 0) throw new SchemaError(file, "/properties", "has no option");
  const properties = written.map(([name, option]) => {
    const { $ref, ...own } = option as typeof option & { readonly $ref?: string };
    const definition = schema.$defs?.[$ref?.replace("#/$defs/", "") ?? ""];
    return [name, $ref === undefined || definition === undefined ? option : { ...definition, ...own }];
  });
  return { ...schema, properties: Object.fromEntries(properties) };
}

/** @throws SchemaError if Ajv refuses the value, with its first error */
function refuse(schema: AnySchema, value: unknown, file: string, pointer = ""): void {
  const ajv = new Validator({ strict: false, discriminator: true });
  if (ajv.validate(schema, value)) return;
  const { instancePath, message, params } = ajv.errors![0]!;
  throw new SchemaError(file, pointer + instancePath, `${message} ${JSON.stringify(params)}`);
}

/** Keywords that the generator reads of a schema with these options. It enforces no other keyword, so none is accepted. */
function metaSchema(names: readonly string[]): AnySchema {
  const closed = (properties: object, optional: readonly string[] = []) => {
    const required = Object.keys(properties).filter((key) => !optional.includes(key));
    return { type: "object", properties, required, additionalProperties: false };
  };
  // One line that ends neither a comment nor the body of a function.
  const text = {
    type: "string",
    pattern: "^(?!.*(?:\\*/|\\$function\\$))[^\\p{Cc}\\p{Cs}]*[^\\s\\p{Cc}\\p{Cs}][^\\p{Cc}\\p{Cs}]*$",
  };
  const flag = { type: "boolean" };
  const snakeCase = { type: "string", pattern: "^[a-z][a-z0-9_]{0,62}$" };
  const name = { enum: names };
  const nameList = { type: "array", items: name, uniqueItems: true };
  const option = (type: string, own: object, optional: readonly string[] = []) => {
    const common = {
      $comment: {},
      type: { const: type },
      description: text,
      "x-remedy": text,
      default: {},
      "x-connection": flag,
    };
    return closed({ ...common, ...own }, ["$comment", "default", "x-connection", ...optional]);
  };
  const bound = {
    type: "integer",
    exclusiveMinimum: -Number.MAX_SAFE_INTEGER,
    exclusiveMaximum: Number.MAX_SAFE_INTEGER,
  };
  const length = { type: "integer", minimum: 0 };
  const string = { minLength: length, maxLength: length, pattern: text, "x-pattern-means": text, writeOnly: flag };
  const set = { $ref: "#/$defs/set" };
  const condition = {
    required: nameList,
    properties: { type: "object", propertyNames: name, additionalProperties: closed({ const: {} }) },
    not: set,
    anyOf: { type: "array", items: set, minItems: 1 },
    if: set,
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    then: set,
  };
  const together = (one: string, other: string) => ({ dependentRequired: { [one]: [other], [other]: [one] } });
  const violation = closed({ option: name, kind: { enum: ["missing", "conflict"] }, message: text, hint: text });
  const rule = { $comment: {}, description: text, "x-whole-only": flag, "x-violation": violation };
  const ifThen = together("if", "then");
  return {
    $defs: { set: { ...closed(condition, Object.keys(condition)), ...ifThen, minProperties: 1 } },
    ...closed(
      {
        $schema: { const: "https://json-schema.org/draft/2020-12/schema" },
        $id: text,
        $comment: text,
        title: { const: "NatsServerOptions" },
        description: text,
        type: { const: "object" },
        additionalProperties: { const: false },
        $defs: { type: "object" },
        properties: {
          type: "object",
          propertyNames: snakeCase,
          additionalProperties: {
            type: "object",
            required: ["type"],
            discriminator: { propertyName: "type" },
            oneOf: [
              {
                ...option("string", string, ["minLength", "pattern", "x-pattern-means", "writeOnly"]),
                ...together("pattern", "x-pattern-means"),
              },
              option("integer", { minimum: bound, maximum: bound }),
              option("boolean", {}),
            ],
          },
        },
        dependentRequired: { type: "object", propertyNames: name, additionalProperties: nameList },
        allOf: {
          type: "array",
          items: {
            ...closed({ ...rule, ...condition }, ["$comment", "x-whole-only", ...Object.keys(condition)]),
            ...ifThen,
          },
        },
        "x-auth-priority": {
          type: "array",
          minItems: 1,
          items: closed({ mode: snakeCase, requires: nameList, description: text }),
        },
      },
      ["$id", "$comment", "$defs", "dependentRequired", "allOf"],
    ),
  };
}

/** @throws SchemaError if a mode can never be reached, or a set of options may match none */
function refuseModes(modes: readonly AuthMode[], file: string): void {
  for (const [index, { mode, requires }] of modes.entries()) {
    const earlier = modes
      .slice(0, index)
      .find((other) => other.mode === mode || other.requires.every((option) => requires.includes(option)));
    const pointer = `/x-auth-priority/${index}`;
    if (earlier !== undefined) {
      throw new SchemaError(file, pointer, `is never reached: "${earlier.mode}" comes first`);
    }
    if (index === modes.length - 1 && requires.length > 0) {
      throw new SchemaError(file, pointer, "is the last mode and must require nothing, so that every set has a mode");
    }
  }
}

function valueRule({ name, "x-remedy": hint }: Option, value: ValueCondition, words: string): Rule {
  const message = `option "${name}" ${words}`;
  return { option: name, holds: { properties: { [name]: value } }, sqlstate: sqlstates.value, message, hint };
}

function typeRule({ type, minimum, maximum }: Option): string {
  if (type === "integer") return `must be an integer from ${minimum} to ${maximum}`;
  return type === "string" ? "must be text" : "must be a boolean";
}

/** Rules about the limits of an option's value, in the order in which they are checked. */
function limits(option: Option): Rule[] {
  const { minimum, maximum, minLength = 0, maxLength, pattern, "x-pattern-means": means } = option;
  if (minimum !== undefined && maximum !== undefined)
    return [valueRule(option, { minimum, maximum }, typeRule(option))];
  const least = minLength === 1 ? "must not be empty" : `must have at least ${minLength} characters`;
  return [
    ...(minLength > 0 ? [valueRule(option, { minLength }, least)] : []),
    ...(maxLength ? [valueRule(option, { maxLength }, `must have at most ${maxLength} characters`)] : []),
    ...(pattern ? [valueRule(option, { pattern }, `must be ${means}`)] : []),
  ];
}

/**
 * Rules over several options: first those of `dependentRequired`, whose messages follow from their form, then those of
 * `allOf`, whose messages are in `x-violation`.
 */
function rulesOverSeveral({ dependentRequired = {}, allOf = [] }: SchemaFile, names: readonly string[]): Rule[] {
  const about = (condition: SetCondition) => names.filter((name) => namesIn(condition).includes(name));
  const dependencies = Object.entries(dependentRequired).flatMap(([option, needs]) =>
    needs.map((needed): Rule => {
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
      const holds = { if: { required: [option] }, then: { required: [needed] } };
      return {
        option: needed,
        holds,
        sqlstate: sqlstates.missing,
        message: `option "${needed}" is missing: ${option} needs it`,
        hint: `Add ${needed}, or drop ${option}.`,
        about: about(holds),
        description: `${option} needs ${needed}`,
      };
    }),
  );
  const statements = allOf.map((rule): Rule => {
    const { $comment, description, "x-whole-only": wholeOnly = false, "x-violation": violation, ...holds } = rule;
    const { option, kind, message, hint } = violation;
    return { option, holds, sqlstate: sqlstates[kind], message, hint, about: about(holds), description, wholeOnly };
  });
  return [...dependencies, ...statements];
}

function namesIn({ required = [], properties = {}, not, anyOf = [], if: when, then }: SetCondition): string[] {
  const parts = [not, when, then, ...anyOf].flatMap((part) => (part === undefined ? [] : namesIn(part)));
  return [...required, ...Object.keys(properties), ...parts];
}

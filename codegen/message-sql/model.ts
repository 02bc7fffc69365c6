/**
 * Model of the generated SQL: the messages with a topic and all types that their fields reach, with their names and
 * types in SQL. Anything that SQL cannot represent is refused here.
 */
import { type DescEnum, type DescField, type DescFile, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence, isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { hasTopic, type TopicOfSchema, topicOf } from "../../src/protobuf/typed/index.js";
import { TakenNames } from "../model/duplicates.js";
import { SpecError } from "../model/spec-error.js";
import { maxIdentifierBytes, quoted, snakeCase } from "./names.js";
import type { SqlOptions } from "./options.js";

/** Kind of one value: of a field, of an element of a list, or of a key or value of a map. */
export type ValueKind =
  | { readonly kind: "scalar"; readonly scalar: ScalarType }
  | { readonly kind: "enum"; readonly enum: EnumModel }
  | { readonly kind: "message"; readonly message: MessageModel }
  | { readonly kind: "timestamp" | "duration" }
  /** Wrapper, such as StringValue: a value that may be NULL. */
  | { readonly kind: "wrapper"; readonly scalar: ScalarType };

/** Enum, which is a text in SQL. */
export interface EnumModel {
  readonly desc: DescEnum;
  /** Stem of its function names in SQL: `…_name(integer)` and `…_number(text)`. */
  readonly name: string;
}

/** Field: an attribute of the type, and a parameter of the publish function. */
export type FieldModel = {
  readonly desc: DescField;
  readonly number: number;
  /** Quoted column name. */
  readonly column: string;
  readonly value: ValueKind;
} & (
  | {
      readonly shape: "single";
      /** `implicit`: an absent field means zero, and the column is never NULL after a message is read. */
      readonly presence: "implicit" | "explicit" | "required";
    }
  | { readonly shape: "list" }
  /** `entry`: the type of a key and a value, with its schema. */
  | { readonly shape: "map"; readonly key: ScalarType; readonly entry: string; readonly entryName: string }
);

/** Message, which is a composite type in SQL. */
export interface MessageModel {
  readonly desc: DescMessage;
  /** Type name without schema and quotes; functions are named after it. */
  readonly name: string;
  /** Fields in the order of their numbers, so that an added field comes last in old and new databases. */
  readonly fields: readonly FieldModel[];
  /** Undefined for a message that is only part of others. */
  readonly topic: TopicOfSchema | undefined;
}

/** All objects to generate. */
export interface SqlModel {
  readonly options: SqlOptions;
  readonly enums: readonly EnumModel[];
  /** Messages in the order of dependencies: each after the messages of its fields. */
  readonly messages: readonly MessageModel[];
  /** Files whose messages have a topic. */
  readonly files: readonly string[];
}

/** Parameters of `publish_…` that are not fields. */
const ownParameters = ["_key", "_message_id", "_deliver_at", "_headers", "_to"] as const;
/** Greatest number of fields: Postgres limits a function to 100 parameters. */
const maxFields = 100 - ownParameters.length;
/** Length of the longest prefix or suffix of a type's name. */
const longestAffix = "hawser_decode_".length;

/**
 * Reads the messages with the option `hawser.v1.topic`.
 *
 * @param files the files that buf requests
 * @throws SpecError for anything that SQL cannot represent, HawserError `invalid_schema` for an invalid option or rule
 */
export function readModel(files: readonly DescFile[], options: SqlOptions): SqlModel {
  return new ModelReader(options).read(files);
}

class ModelReader {
  readonly #options: SqlOptions;

  readonly #enums = new Map<DescEnum, EnumModel>();

  readonly #messages = new Map<DescMessage, MessageModel>();

  /** Messages that are being read, outermost first. A field of one of these types would be a cycle. */
  readonly #open: DescMessage[] = [];

  readonly #names = new TakenNames("in SQL, the name");

  constructor(options: SqlOptions) {
    this.#options = options;
  }

  read(files: readonly DescFile[]): SqlModel {
    const withTopic = files.filter(
      (file) =>
        messagesOf(file)
          .filter(hasTopic)
          .map((desc) => this.#message(desc)).length > 0,
    );
    return {
      options: this.#options,
      enums: [...this.#enums.values()],
      messages: [...this.#messages.values()],
      files: withTopic.map((file) => file.proto.name),
    };
  }

  #message(desc: DescMessage): MessageModel {
    const known = this.#messages.get(desc);
    if (known !== undefined) return known;
    const topic = hasTopic(desc) ? topicOf(desc) : undefined;
    const name = this.#name(desc);
    this.#open.push(desc);
    const fields = [...desc.fields]
      .sort((one, other) => one.number - other.number)
      .map((field) => this.#field(field, name));
    this.#open.pop();
    if (topic !== undefined && fields.length > maxFields) {
      throw new SpecError(
        desc,
        `it has ${fields.length} fields, and a function in SQL takes ${maxFields}; move some to a message in it`,
      );
    }
    const model = { desc, name, fields, topic };
    this.#messages.set(desc, model);
    return model;
  }

  #field(desc: DescField, owner: string): FieldModel {
    const { name, number } = desc;
    if (Buffer.byteLength(name) > maxIdentifierBytes) {
      throw new SpecError(
        desc,
        `its name has ${name.length} bytes, and Postgres takes ${maxIdentifierBytes}; shorten it`,
      );
    }
    if ((ownParameters as readonly string[]).includes(name)) {
      throw new SpecError(desc, `its name is that of a parameter of publish_${owner}; choose another`);
    }
    const shared = { desc, number, column: quoted(name), value: this.#value(desc) };
    if ("delimitedEncoding" in desc && desc.delimitedEncoding) {
      throw new SpecError(desc, "groups (DELIMITED) are not supported in SQL; use a message with a length");
    }
    switch (desc.fieldKind) {
      case "list":
        return { ...shared, shape: "list" };
      case "map": {
        const entryName = this.#checkedName(desc.parent, `${owner}_${name}`, desc);
        return { ...shared, shape: "map", key: desc.mapKey, entry: qualified(this.#options, entryName), entryName };
      }
      default:
        return { ...shared, shape: "single", presence: presenceOf(desc) };
    }
  }

  #value(field: DescField): ValueKind {
    if (field.enum !== undefined) return { kind: "enum", enum: this.#enum(field.enum) };
    const { message } = field;
    if (message === undefined) return { kind: "scalar", scalar: field.scalar! };
    if (isWrapperDesc(message)) return { kind: "wrapper", scalar: message.fields[0]!.scalar! };
    switch (message.typeName) {
      case "google.protobuf.Timestamp":
        return { kind: "timestamp" };
      case "google.protobuf.Duration":
        return { kind: "duration" };
    }
    if (message.file.proto.package === "google.protobuf") {
      throw new SpecError(field, `${message.typeName} is not supported in SQL; ${insteadOf(message)}`);
    }
    if (this.#open.includes(message)) {
      const circle = [...this.#open.slice(this.#open.indexOf(message)), message].map(({ typeName }) => typeName);
      throw new SpecError(field, `no type of SQL can contain itself: ${circle.join(" → ")}; use bytes for one of them`);
    }
    return { kind: "message", message: this.#message(message) };
  }

  #enum(desc: DescEnum): EnumModel {
    const known = this.#enums.get(desc);
    if (known !== undefined) return known;
    if (!desc.open) throw new SpecError(desc, "closed enums (of proto2) are not supported in SQL; use an open one");
    const model = { desc, name: this.#name(desc) };
    this.#enums.set(desc, model);
    return model;
  }

  /** Name of a type: `outer_inner` for a nested one. */
  #name(desc: DescMessage | DescEnum): string {
    const parts: string[] = [];
    for (let at: DescMessage | DescEnum | undefined = desc; at !== undefined; at = at.parent) parts.unshift(at.name);
    return this.#checkedName(desc, this.#options.prefix + parts.map(snakeCase).join("_"), desc);
  }

  #checkedName(owner: DescMessage | DescEnum, name: string, where: DescMessage | DescEnum | DescField): string {
    const max = maxIdentifierBytes - longestAffix;
    if (name.length > max) {
      throw new SpecError(
        where,
        `its name in SQL, "${name}", has ${name.length} bytes, and may have ${max}; shorten it`,
      );
    }
    if (name.startsWith("hawser_")) {
      throw new SpecError(
        where,
        `its name in SQL, "${name}", begins with hawser_, which is reserved; give the option prefix`,
      );
    }
    this.#names.take(name, owner);
    return name;
  }
}

/** Name with its schema, both quoted. */
export function qualified({ schema }: SqlOptions, name: string): string {
  return `${quoted(schema)}.${quoted(name)}`;
}

/** SQL type of a value. */
export function typeOf(options: SqlOptions, value: ValueKind): string {
  switch (value.kind) {
    case "scalar":
    case "wrapper":
      return scalarTypes[value.scalar];
    case "enum":
      return "text";
    case "message":
      return qualified(options, value.message.name);
    case "timestamp":
      return "timestamptz";
    case "duration":
      return "interval";
  }
}

/** SQL type of a field. */
export function fieldType(options: SqlOptions, field: FieldModel): string {
  if (field.shape === "map") return `${field.entry}[]`;
  const type = typeOf(options, field.value);
  return field.shape === "list" ? `${type}[]` : type;
}

/** Fields 1 and 2 of the message that represents a map entry. */
export function entryFields(field: Extract<FieldModel, { shape: "map" }>): readonly FieldModel[] {
  const part = (number: number, name: string, value: ValueKind): FieldModel => ({
    desc: field.desc,
    number,
    column: quoted(name),
    value,
    shape: "single",
    presence: "implicit",
  });
  return [part(1, "key", { kind: "scalar", scalar: field.key }), part(2, "value", field.value)];
}

const scalarTypes: Readonly<Record<ScalarType, string>> = {
  [ScalarType.DOUBLE]: "double precision",
  [ScalarType.FLOAT]: "real",
  [ScalarType.INT32]: "integer",
  [ScalarType.SINT32]: "integer",
  [ScalarType.SFIXED32]: "integer",
  [ScalarType.INT64]: "bigint",
  [ScalarType.SINT64]: "bigint",
  [ScalarType.SFIXED64]: "bigint",
  [ScalarType.UINT32]: "bigint",
  [ScalarType.FIXED32]: "bigint",
  [ScalarType.UINT64]: "numeric(20)",
  [ScalarType.FIXED64]: "numeric(20)",
  [ScalarType.BOOL]: "boolean",
  [ScalarType.STRING]: "text",
  [ScalarType.BYTES]: "bytea",
};

function presenceOf(desc: DescField): "implicit" | "explicit" | "required" {
  if (desc.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) return "required";
  return desc.presence === FeatureSet_FieldPresence.IMPLICIT ? "implicit" : "explicit";
}

function insteadOf({ typeName }: DescMessage): string {
  const json = ["Struct", "Value", "ListValue"].map((name) => `google.protobuf.${name}`);
  return json.includes(typeName) ? "use a string with JSON in it" : "use a message or bytes";
}

function messagesOf(file: DescFile): DescMessage[] {
  const all = (messages: readonly DescMessage[]): DescMessage[] =>
    messages.flatMap((message) => [message, ...all(message.nestedMessages)]);
  return all(file.messages);
}

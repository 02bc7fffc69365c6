import type { DescField, DescMessage, DescOneof } from "@bufbuild/protobuf";
import { commentOf } from "./comments.js";
import { camelCase, typescriptName } from "./names.js";
import type { SpecOptions } from "./options.js";
import type { Rules } from "./rules.js";
import { type IntegerRange, integerRangeOf, type ValueKind, valueKindOf } from "./value-kind.js";
import { readMessageRules, readWireRules } from "./wire-rules.js";

/** Message that is sent: a frame or a part of one. */
export interface Message {
  readonly desc: DescMessage;
  /** Type name in TypeScript; `Outer_Inner` for a nested message. */
  readonly name: string;
  readonly comment: string;
  /** Fields and oneofs in the order of their declaration. */
  readonly members: readonly Member[];
  /** Rules between fields in words, such as "first_number must be …". Hand-written TypeScript checks them. */
  readonly rules: readonly string[];
}

export type Member = MessageField | MessageOneof;

export interface MessageField {
  readonly memberKind: "field";
  readonly field: DescField;
  /** Property in TypeScript, such as `senderName`. */
  readonly name: string;
  readonly comment: string;
  /** Kind of one value; undefined for a map. */
  readonly kind: ValueKind | undefined;
  readonly repeated: boolean;
  /** True if the property may be undefined. */
  readonly optional: boolean;
  readonly range: IntegerRange | undefined;
  readonly rules: Rules;
}

export interface MessageOneof {
  readonly memberKind: "oneof";
  readonly oneof: DescOneof;
  readonly name: string;
  readonly comment: string;
  readonly required: boolean;
  readonly fields: readonly MessageField[];
}

/** Reads a message that is not a table, a group of settings, or the request or response of a function. */
export function readMessage(desc: DescMessage, options: SpecOptions): Message {
  return {
    desc,
    name: typescriptName(desc),
    comment: commentOf(desc),
    rules: readMessageRules(desc, options),
    members: desc.members.map((member) => {
      if (member.kind === "field") {
        return readField(member, options);
      }
      return {
        memberKind: "oneof",
        oneof: member,
        name: camelCase(member.name),
        comment: commentOf(member),
        required: options.isRequired(member),
        fields: member.fields.map((field) => readField(field, options)),
      };
    }),
  };
}

function readField(field: DescField, options: SpecOptions): MessageField {
  const kind = valueKindOf(field);
  const repeated = field.fieldKind === "list";
  const range = integerRangeOf(field);
  const rules = readWireRules(field, options, { kind, repeated, range });
  return {
    memberKind: "field",
    field,
    name: camelCase(field.name),
    comment: commentOf(field),
    kind,
    repeated,
    optional: field.proto.proto3Optional || (!repeated && (kind === "message" || kind === "timestamp")),
    range,
    rules,
  };
}

import type { DescEnum } from "@bufbuild/protobuf";
import { commentLineOf, commentOf } from "../model/comments.js";
import type { Message, MessageField } from "../model/messages.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { specTypeOf } from "../model/value-kind.js";
import { code, codes, markdownTable, prose, section } from "../print.js";

/** Messages of one file: their fields, types and limits. */
export function framesSection(file: SpecFile): string {
  const sections = [...file.messages.map(messageSection), ...file.file.enums.map(enumSection)];
  return section(`## ${file.file.proto.package}`, commentOf(file.file), ...sections);
}

function messageSection(message: Message): string {
  const rows = message.members.flatMap((member) =>
    member.memberKind === "field"
      ? [fieldRow(member, "")]
      : member.fields.map((field) => fieldRow(field, `one of ${code(member.oneof.name)}`)),
  );
  const required = message.members.filter((member) => member.memberKind === "oneof" && member.required);
  return section(
    `### ${message.name.replaceAll("_", ".")}`,
    message.comment,
    rows.length === 0 ? "No fields.\n" : markdownTable(["Field", "Number", "Type", "Limits", "Meaning"], rows),
    ...(required.length === 0 ? [] : [`One field of ${codes(required.map((oneof) => oneof.name))} must be set.\n`]),
    ...(message.rules.length === 0 ? [] : [message.rules.map((rule) => `- ${prose(rule)}\n`).join("")]),
  );
}

function fieldRow(field: MessageField, group: string): string[] {
  const limits = field.kind === undefined ? [] : limitPhrases(field.rules, field.kind);
  return [
    code(field.field.name),
    String(field.field.number),
    code(specTypeOf(field.field)),
    [group, ...limits].filter((phrase) => phrase !== "").join("; "),
    prose(field.comment),
  ];
}

function enumSection(enumeration: DescEnum): string {
  const rows = enumeration.values.map((value) => [code(value.name), String(value.number), prose(commentLineOf(value))]);
  const table = markdownTable(["Value", "Number", "Meaning"], rows);
  return section(`### ${enumeration.name}`, commentOf(enumeration), table);
}

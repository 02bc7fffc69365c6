import type { Message, MessageField } from "../model/messages.js";
import { areaOf, baseNameOf, typescriptName } from "../model/names.js";
import type { SpecFile } from "../model/spec.js";
import { stringLiteral, typescriptHead } from "../print.js";
import { printCheck } from "./check-function.js";
import { checkedField } from "./checked-value.js";
import { importLine } from "./imports.js";
import { type Limited, printLimits } from "./limits.js";
import { printValidator } from "./message-validator.js";

/**
 * The validators of the messages of one file, for the types that ts-proto makes of it.
 *
 * @param checked the names of all messages with rules, of whatever file
 */
export function framesModule(file: SpecFile, checked: ReadonlySet<string>): string {
  const messages = file.messages.filter((message) => checked.has(message.desc.typeName));
  const fields = messages.flatMap(fieldsOf);
  const checks = fields.flatMap((field) => checkedField(field) ?? []).map(printCheck);
  const body = [
    printLimits(messages.map((message) => ({ name: message.name, values: fieldsOf(message) satisfies Limited[] }))),
    ...checks,
    ...messages.map((message) => printValidator(message, checked)),
  ];
  const foreign = foreignValidators(file, fields, checked);
  const types = messages.map((message) => message.name).sort();
  const codecs = `../../codecs/${file.file.proto.name.replace(/\.proto$/, ".js")}`;
  return [
    typescriptHead("codegen/validators", [file]),
    `import type { ${types.join(", ")} } from ${stringLiteral(codecs)};\n${importLine(body, "../violation.js")}${foreign}`,
    ...body,
  ].join("\n");
}

/** Imports of the validators of messages that other files declare. */
function foreignValidators(file: SpecFile, fields: readonly MessageField[], checked: ReadonlySet<string>): string {
  const inner = fields.flatMap(({ field }) => field.message ?? []);
  const foreign = inner.filter((message) => checked.has(message.typeName) && message.file !== file.file);
  const byName = new Map(foreign.map((message) => [typescriptName(message), message]));
  return [...byName]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, message]) => {
      const path = `../${areaOf(message.file.proto.package)}/${baseNameOf(message.file.proto.name)}.js`;
      return `import { validate${name} } from ${stringLiteral(path)};\n`;
    })
    .join("");
}

function fieldsOf(message: Message) {
  return message.members.flatMap((member) => (member.memberKind === "field" ? [member] : member.fields));
}

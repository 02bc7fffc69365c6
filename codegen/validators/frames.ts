import type { Member, Message, MessageField, MessageOneof } from "../model/messages.js";
import { lowerFirst, pascalCase, typescriptName } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import {
  checkExpression,
  checkedField,
  checkedType,
  type Limited,
  printLimits,
  ruleImports,
  textRules,
} from "./checks.js";

/**
 * Prints the validators of the messages of one file, for the types that ts-proto generates from it.
 *
 * @param checked the names of all messages with rules, of all files
 */
export function framesModule(file: SpecFile, checked: ReadonlySet<string>): string {
  const messages = file.messages.filter((message) => checked.has(message.desc.typeName));
  const fields = messages.flatMap(fieldsOf);
  const checks = fields.flatMap((field) => checkFunction(field) ?? []);
  const body = [
    printLimits(messages.map((message) => ({ name: message.name, values: fieldsOf(message) satisfies Limited[] }))),
    ...checks,
    ...messages.map((message) => printValidator(message, checked)),
  ];
  const types = messages.map((message) => message.name).sort();
  const codecs = `../../codecs/${file.file.proto.name.replace(/\.proto$/, ".js")}`;
  return [
    typescriptHead("codegen/validators", [file]),
    `import type { ${types.join(", ")} } from ${stringLiteral(codecs)};\n${ruleImports(body, "..")}`,
    ...body,
  ].join("\n");
}

function fieldsOf(message: Message) {
  return message.members.flatMap((member) => (member.memberKind === "field" ? [member] : member.fields));
}

/** Names of the messages with anything to check, in themselves or in the messages they contain. */
export function messagesWithRules(messages: readonly Message[]): Set<string> {
  const checked = new Set<string>();
  let grew = true;
  // Repeated until nothing is added: a message may contain itself, or a message that is declared after it.
  while (grew) {
    grew = false;
    for (const message of messages) {
      if (!checked.has(message.desc.typeName) && message.members.some((member) => hasRules(member, checked))) {
        checked.add(message.desc.typeName);
        grew = true;
      }
    }
  }
  return checked;
}

function hasRules(member: Member, checked: ReadonlySet<string>): boolean {
  if (member.memberKind === "oneof") {
    return member.required || member.fields.some((field) => hasRules(field, checked));
  }
  return (
    checkedField(member) !== undefined ||
    member.rules.required === true ||
    (member.field.message !== undefined && checked.has(member.field.message.typeName))
  );
}

/**
 * Prints `export function validate<Message>(message): Violation | undefined`: checks the fields in their order and
 * returns the first violation. Fields without rules are not read, so that a long list of payloads costs nothing.
 */
function printValidator(message: Message, checked: ReadonlySet<string>): string {
  const steps = message.members.flatMap((member) =>
    member.memberKind === "oneof"
      ? oneofSteps(message, member, checked)
      : fieldSteps(member, `message.${member.name}`, checked),
  );
  const oneofs = message.members.filter((member) => member.memberKind === "oneof");
  const text = `Checks \`${message.name}\` against the rules of the spec.${message.comment === "" ? "" : `\n\n${message.comment}`}`;
  return [
    `${docstring(text)}export function validate${message.name}(message: ${message.name}): Violation | undefined {`,
    `  return ${steps.length === 0 ? "undefined" : steps.join(" ??\n    ")};`,
    "}",
    "",
    ...oneofs.flatMap((oneof) =>
      oneofSteps(message, oneof, checked).length > 0 ? [printOneof(message, oneof, checked)] : [],
    ),
  ].join("\n");
}

function fieldSteps(field: MessageField, value: string, checked: ReadonlySet<string>): string[] {
  const inner = field.field.message;
  const steps = checkedField(field) === undefined ? [] : [whereSet(field, value, `${checkName(field)}(${value})`)];
  if (field.rules.required) {
    const ruleText = '{ rule: "must be present", remedy: "Set it." }';
    steps.push(`(${value} === undefined ? missing(${stringLiteral(field.name)}, ${ruleText}) : undefined)`);
  }
  if (inner !== undefined && checked.has(inner.typeName) && field.kind === "message") {
    const name = stringLiteral(field.name);
    const validator = `validate${typescriptName(inner)}`;
    steps.push(
      field.repeated
        ? `checkEach(${name}, ${value}, ${validator})`
        : whereSet(field, value, `within(${name}, ${validator}(${value}))`),
    );
  }
  return steps;
}

function whereSet(field: MessageField, value: string, step: string): string {
  return field.optional ? `(${value} === undefined ? undefined : ${step})` : step;
}

function oneofSteps(message: Message, oneof: MessageOneof, checked: ReadonlySet<string>): string[] {
  return hasRules(oneof, checked) ? [`${oneofFunction(message, oneof)}(message.${oneof.name})`] : [];
}

function oneofFunction(message: Message, oneof: MessageOneof): string {
  return `validate${message.name}${oneof.name.charAt(0).toUpperCase()}${oneof.name.slice(1)}`;
}

/**
 * Prints the check of a oneof, which is `{ $case, value }`. The path of a violation begins with the field that is set.
 */
function printOneof(message: Message, oneof: MessageOneof, checked: ReadonlySet<string>): string {
  const cases = oneof.fields.flatMap((field) => {
    const steps = fieldSteps({ ...field, optional: false }, "oneof.value", checked);
    return steps.length === 0
      ? []
      : [`    case ${stringLiteral(field.name)}:`, `      return ${steps.join(" ??\n        ")};`];
  });
  const names = oneof.fields.map((field) => field.name).join(", ");
  const ruleText = `{ rule: ${stringLiteral(`must be one of ${names}`)}, remedy: "Set one of them." }`;
  return [
    `function ${oneofFunction(message, oneof)}(oneof: ${message.name}[${stringLiteral(oneof.name)}]): Violation | undefined {`,
    "  switch (oneof?.$case) {",
    ...cases,
    ...(oneof.required
      ? ["    case undefined:", `      return missing(${stringLiteral(oneof.name)}, ${ruleText});`]
      : []),
    "    default:",
    "      return undefined;",
    "  }",
    "}",
    "",
  ].join("\n");
}

/** Prints a field's own check; undefined if there is nothing to check. */
function checkFunction(field: MessageField): string | undefined {
  const value = checkedField(field);
  if (value === undefined) {
    return undefined;
  }
  const phrases = limitPhrases(field.rules, value.kind);
  const limits = phrases.length === 0 ? "" : ` Limits: ${phrases.join("; ")}.`;
  const origin = `${field.field.parent.name}.${field.field.name}`;
  const doc = `Checks \`${origin}\`.${limits}${field.comment === "" ? "" : `\n\n${field.comment}`}`;
  // On the hot path, no object of rules is created per call.
  const isText = (value.kind === "string" || value.kind === "bytes") && !value.repeated;
  const hoisted =
    isText && value.rules.named === undefined ? `${lowerFirst(checkName(field).slice(5))}Rules` : undefined;
  const constant = hoisted === undefined ? "" : `const ${hoisted}: TextRules = ${textRules(value.rules)};\n\n`;
  const expression = checkExpression(value, "value", hoisted).replace(/^\((.*)\)$/, "$1");
  return `${constant}${docstring(doc)}export function ${checkName(field)}(value: ${checkedType(value)}): Violation | undefined {\n  return ${expression};\n}\n`;
}

function checkName({ field }: MessageField): string {
  return `check${typescriptName(field.parent)}${pascalCase(field.name)}`;
}

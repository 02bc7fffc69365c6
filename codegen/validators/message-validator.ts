import type { Member, Message, MessageField, MessageOneof } from "../model/messages.js";
import { typescriptName } from "../model/names.js";
import { docstring, stringLiteral } from "../print.js";
import { checkedField } from "./checked-value.js";

/** Messages that have anything to check, themselves or in the messages they hold. */
export function messagesWithRules(messages: readonly Message[]): Set<string> {
  const checked = new Set<string>();
  let grew = true;
  // Until nothing is added: a message may hold one that is declared after it, or itself.
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
 * Prints `export function validate<Message>(message): Violation | undefined`: the checks of its fields in their order,
 * the first violation wins. Fields without rules are not touched, so that a long list of payloads costs nothing.
 */
export function printValidator(message: Message, checked: ReadonlySet<string>): string {
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
  const check = checkedField(field);
  const inner = field.field.message;
  const steps = check === undefined ? [] : [whereSet(field, value, `${check.functionName}(${value})`)];
  if (field.rules.required) {
    const words = [field.name, "nothing", "must be present", "Set it."].map(stringLiteral).join(", ");
    steps.push(`(${value} === undefined ? violation(${words}) : undefined)`);
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

/** A oneof is `{ $case, value }`; the path of a violation begins with the field that is set. */
function printOneof(message: Message, oneof: MessageOneof, checked: ReadonlySet<string>): string {
  const cases = oneof.fields.flatMap((field) => {
    const steps = fieldSteps({ ...field, optional: false }, "oneof.value", checked);
    return steps.length === 0
      ? []
      : [`    case ${stringLiteral(field.name)}:`, `      return ${steps.join(" ??\n        ")};`];
  });
  const names = oneof.fields.map((field) => field.name).join(", ");
  const words = [oneof.name, "nothing", `must be one of ${names}`, "Set one of them."].map(stringLiteral).join(", ");
  return [
    `function ${oneofFunction(message, oneof)}(oneof: ${message.name}[${stringLiteral(oneof.name)}]): Violation | undefined {`,
    "  switch (oneof?.$case) {",
    ...cases,
    ...(oneof.required ? ["    case undefined:", `      return violation(${words});`] : []),
    "    default:",
    "      return undefined;",
    "  }",
    "}",
    "",
  ].join("\n");
}

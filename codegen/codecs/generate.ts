/**
 * Generates the codec of the frames between peers: for each message a function that reads and checks it in one pass,
 * one that returns its encoded size, and one that writes it. The reader accepts everything that protobuf decoders
 * accept, except a length that extends beyond its message.
 *
 * Types and enums come from ts-proto. Only the features that frames use are supported: fields 1 to 15 of int32, uint32,
 * uint64, bool, enum, string, bytes and message.
 */
import { ScalarType } from "@bufbuild/protobuf";
import type { Message, MessageField } from "../model/messages.js";
import { pascalCase, typescriptName } from "../model/names.js";
import type { Spec, SpecFile } from "../model/spec.js";
import { SpecError } from "../model/spec-error.js";
import { isSafeInteger } from "../model/value-kind.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import { sourceText } from "../source-text.js";
import { checkedField, importLine } from "../validators/checks.js";

const frameType = "hawser.peer.v1.Frame";
const runtimeFile = "codecs/runtime/coding.ts";

/** Generates `frames.ts`, the codec of `Frame`, and its runtime `coding.ts`. Empty for a spec without frames. */
export function generateCodecs(spec: Spec): GeneratedFile[] {
  const file = spec.files.find(({ messages }) => messages.some(({ desc }) => desc.typeName === frameType));
  if (file === undefined) return [];
  return [
    { path: "frames.ts", content: framesCodec(file) },
    {
      path: "coding.ts",
      content: `${typescriptHead("codegen/codecs", [`codegen/${runtimeFile}`])}\n${sourceText(runtimeFile)}`,
    },
  ];
}

function framesCodec(file: SpecFile): string {
  const frame = file.messages.find(({ desc }) => desc.typeName === frameType)!;
  const [kinds] = frame.members;
  if (kinds?.memberKind !== "oneof" || frame.members.length !== 1) {
    throw new SpecError(frame.desc, "a frame has nothing but its kind, a oneof");
  }
  const messages = file.messages.filter((message) => message !== frame);
  const body = [
    tagsOf(frame.name, kinds.fields, messages),
    frameFunctions(kinds.fields),
    ...messages.flatMap((message) => [reader(message), sizer(message), writer(message)]),
  ];
  const text = body.join("\n");
  const types = messages.map(({ name }) => name).filter((name) => text.includes(`: ${name}`));
  const checks = [...new Set(text.match(/\bcheck[A-Z]\w+(?=\()/g) ?? [])].sort();
  return [
    typescriptHead("codegen/codecs", [file]),
    `import type { Frame as Envelope, ${types.sort().join(", ")} } from "../codecs/${file.file.proto.name.replace(/\.proto$/, ".js")}";\n` +
      `import { ${checks.join(", ")} } from "../rules/peer/frames.js";\n` +
      importLine(text, "./coding.js", runtimeNames),
    ...body,
  ].join("\n");
}

const runtimeNames = [
  "decimalBytes",
  "type FrameInput",
  "type FrameOutput",
  "listBytes",
  "numberBytes",
  "packedBytes",
  "sized",
  "writeBytes",
  "writeDecimal",
  "writeEach",
  "writeHead",
  "writeList",
  "writeNumber",
  "writePacked",
  "writeText",
];

/** Prints the tags of all fields, for code that writes parts of a frame. */
function tagsOf(frame: string, kinds: readonly MessageField[], messages: readonly Message[]): string {
  const line = (name: string, fields: readonly MessageField[]): string =>
    `  ${name}: { ${fields.map((field) => `${field.name}: ${tagOf(field)}`).join(", ")} },\n`;
  const lines = [line(frame, kinds), ...messages.map((message) => line(message.name, fieldsOf(message)))];
  return `${docstring("Tag of each field, which is one byte.")}export const tags = {\n${lines.join("")}} as const;\n`;
}

/** Prints the functions that read, measure and write a frame around its value. */
function frameFunctions(kinds: readonly MessageField[]): string {
  const doc = (text: string): string => docstring(text);
  const cases = kinds.map((kind) => ({ name: stringLiteral(kind.name), tag: tagOf(kind), type: nestedName(kind) }));
  return `${doc("Frame: its kind, and the value of that kind.")}export type Frame = NonNullable<Envelope["kind"]>;

${doc("Reads the frame that was passed to `input.begin`. Sets `input.breaksRule` if a value breaks a rule.\n\n@throws RangeError, TypeError if the bytes are not a frame")}export function readFrame(input: FrameInput): Frame {
  const { bytes } = input;
  const end = bytes.length;
  let frame: Frame | undefined;
  while (input.at < end) {
    let tag = bytes[input.at++]!;
    if (tag > 0x7f) tag = input.tag(tag);
    const before = frame;
    switch (tag) {
${cases
  .map(
    ({ name, tag, type }) => `      case ${tag}:
        frame = { $case: ${name}, value: read${type}(input, input.stop(end)) };
        break;\n`,
  )
  .join("")}      default:
        input.skip(tag);
    }
    if (before !== undefined && before !== frame) throw new RangeError(\`it has two kinds, \${before.$case} and \${frame!.$case}\`);
  }
  if (input.at !== end) throw input.misfit(end);
  if (frame === undefined) throw new RangeError("its kind is unknown to this version");
  return frame;
}

${doc("Encoded size of a frame's value in bytes.")}export function valueBytes(frame: Frame): number {
  switch (frame.$case) {
${cases.map(({ name, type }) => `    case ${name}:\n      return bytesOf${type}(frame.value);\n`).join("")}  }
}

${doc("Writes a frame whose value takes `bytes`. The caller has reserved 11 bytes.")}export function writeFrame(output: FrameOutput, frame: Frame, bytes: number): void {
  switch (frame.$case) {
${cases
  .map(
    ({ name, tag, type }) =>
      `    case ${name}:\n      writeHead(output, ${tag}, bytes);\n      write${type}(output, frame.value);\n      return;\n`,
  )
  .join("")}  }
}
`;
}

function fieldsOf(message: Message): MessageField[] {
  return message.members.map((member) => {
    if (member.memberKind === "oneof") throw new SpecError(message.desc, "only Frame has a oneof");
    if (member.field.proto.proto3Optional)
      throw new SpecError(
        member.field,
        "fields of frames are not optional: 0 or an empty value says that it is missing",
      );
    return member;
  });
}

/** Tag of a field, which takes one byte. A list of numbers is packed. */
function tagOf({ field, kind, repeated }: MessageField): number {
  if (field.number > 15) throw new SpecError(field, "fields of frames have numbers up to 15, whose tags take one byte");
  const isVarint = kind === "number" || kind === "bigint" || kind === "boolean" || kind === "enum";
  return (field.number << 3) | (isVarint && !repeated ? 0 : 2);
}

function nestedName({ field }: MessageField): string {
  return typescriptName(field.message!);
}

/**
 * True for the last field of a message if it is a list of messages that have scalar fields only. Consecutive frames often
 * have equal lists of this kind, such as headers, so these are decoded and encoded once.
 */
function isSharedList(field: MessageField, fields: readonly MessageField[]): boolean {
  const { message } = field.field;
  return (
    field.repeated &&
    message?.fields.every(({ fieldKind }) => fieldKind === "scalar") === true &&
    field === fields.at(-1)
  );
}

/** Expression for the value of a varint whose first byte is `first`. */
function varint(field: MessageField): string {
  const { scalar } = field.field;
  if (field.kind === "enum" || scalar === ScalarType.INT32) return "first < 0x80 ? first : input.rest32(first)";
  if (scalar === ScalarType.UINT32) return "first < 0x80 ? first : input.rest32(first) >>> 0";
  if (scalar === ScalarType.BOOL) return "(first < 0x80 ? first : input.rest(first)) !== 0";
  if (scalar === ScalarType.UINT64 && isSafeInteger(field.field)) return "first < 0x80 ? first : input.rest(first)";
  throw new SpecError(field.field, "fields of frames are int32, uint32, uint64, bool, enum, string, bytes or messages");
}

function isDecimal({ field }: MessageField): boolean {
  return field.scalar === ScalarType.UINT64 && !isSafeInteger(field);
}

function emptyValue(field: MessageField): string {
  if (field.repeated) return "[]";
  if (isDecimal(field)) return '"0"';
  switch (field.kind) {
    case "string":
      return '""';
    case "bytes":
      return "new Uint8Array(0)";
    case "boolean":
      return "false";
    case "message":
      throw new SpecError(
        field.field,
        "decoders differ on a message that occurs twice (protobuf merges it, others take the last): make it a list",
      );
    default:
      return "0";
  }
}

function reader(message: Message): string {
  const fields = fieldsOf(message);
  const cases = fields.map((field) => {
    const to = `message.${field.name}`;
    const tag = tagOf(field);
    const lines = (...text: string[]): string =>
      [`case ${tag}: {`, ...text.map((line) => `  ${line}`), "  break;", "}"].map((line) => `      ${line}\n`).join("");
    if (field.kind === "message") {
      const read = `read${nestedName(field)}`;
      const next = `${to}.push(${read}(input, input.stop(end)));`;
      if (!isSharedList(field, fields)) return lines(hasRoom(message, field), next);
      const list = `input.list(end, ${tag}, ${listLimit(message, field)}, ${read})`;
      return lines(
        `if (${to}.length === 0) ${to} = ${list};`,
        "else {",
        `  ${hasRoom(message, field)}`,
        `  ${next}`,
        "}",
      );
    }
    if (field.kind === "enum" && field.repeated) {
      const one = `      case ${tag - 2}: {\n        ${hasRoom(message, field)}\n        const first = bytes[input.at++]!;\n        ${to}.push(${varint(field)});\n        break;\n      }\n`;
      return one + lines(`input.packed(end, ${to}, ${listLimit(message, field)});`);
    }
    const value = field.kind === "string" ? "input.text(end)" : field.kind === "bytes" ? "input.view(end)" : undefined;
    if (value !== undefined && field.repeated) return lines(hasRoom(message, field), `${to}.push(${value});`);
    if (value !== undefined) return lines(`${to} = ${value};`);
    if (field.repeated) throw new SpecError(field.field, "lists of frames are of bytes, texts, enums or messages");
    if (isDecimal(field)) return lines(`${to} = input.decimal();`);
    return lines("const first = bytes[input.at++]!;", `${to} = ${varint(field)};`);
  });
  const rules = fields.flatMap((field) => conditions(message, field));
  const empty = fields.map((field) => `${field.name}: ${emptyValue(field)}`).join(", ");
  return `function read${message.name}(input: FrameInput, end: number): ${message.name} {
  const { bytes } = input;
  const message: ${message.name} = { ${empty} };
  while (input.at < end) {
    let tag = bytes[input.at++]!;
    if (tag > 0x7f) tag = input.tag(tag);
    switch (tag) {
${cases.join("")}      default:
        input.skip(tag);
    }
  }
  if (input.at !== end) throw input.misfit(end);
${rules.length === 0 ? "" : `  if (!(${rules.join(" && ")})) input.breaksRule = true;\n`}  return message;
}
`;
}

/** `max_items` rule of a list. Without it, a short frame could take much memory before any rule is checked. */
function maxItemsOf({ field, rules }: MessageField): number {
  if (rules.maxItems === undefined) throw new SpecError(field, "a list of a frame has a rule repeated.max_items");
  return rules.maxItems;
}

/** Arguments for the name and the maximum length of a list. */
function listLimit(message: Message, field: MessageField): string {
  return `${stringLiteral(`${message.name}.${field.name}`)}, ${maxItemsOf(field)}`;
}

/** Statement that refuses the first element beyond the limit of a list, before the element is read. */
function hasRoom(message: Message, field: MessageField): string {
  return `if (message.${field.name}.length === ${maxItemsOf(field)}) throw input.tooLong(${listLimit(message, field)});`;
}

/** Conditions that a decoded value obeys the rules of its field. The greatest lengths of lists are checked while they are read. */
function conditions(message: Message, field: MessageField): string[] {
  const checked = checkedField(field);
  if (checked === undefined) return [];
  const value = `message.${field.name}`;
  const { kind, repeated, rules } = checked;
  if (kind === "string" && !repeated) return [`check${message.name}${pascalCase(field.name)}(${value}) === undefined`];
  if (repeated) return rules.minItems === undefined ? [] : [`${value}.length >= ${rules.minItems}`];
  const { min, max, minBytes, maxBytes } = rules;
  return [
    ...(min === undefined ? [] : [`${value} >= ${min}`]),
    ...(max === undefined ? [] : [`${value} <= ${max}`]),
    ...(minBytes === undefined ? [] : [`${value}.length >= ${minBytes}`]),
    ...(maxBytes === undefined ? [] : [`${value}.length <= ${maxBytes}`]),
  ];
}

function sizer(message: Message): string {
  const fields = fieldsOf(message);
  const lines = fields.map((field) => {
    const value = `message.${field.name}`;
    if (field.kind === "message") {
      const nested = nestedName(field);
      return isSharedList(field, fields)
        ? `bytes += listBytes(${value}, ${tagOf(field)}, bytesOf${nested}, write${nested});`
        : `for (const one of ${value}) bytes += 1 + sized(bytesOf${nested}(one));`;
    }
    if (field.kind === "enum" && field.repeated) {
      return `if (${value}.length > 0) bytes += 1 + sized(packedBytes(${value}));`;
    }
    if (field.repeated) return `for (const one of ${value}) bytes += 1 + sized(${lengthOf(field, "one")});`;
    const size =
      field.kind === "string" || field.kind === "bytes"
        ? `sized(${lengthOf(field, value)})`
        : isDecimal(field)
          ? `decimalBytes(${value})`
          : field.kind === "boolean"
            ? "1"
            : `numberBytes(${value})`;
    return `if (${isSet(field)}) bytes += 1 + ${size};`;
  });
  return functionOf(`bytesOf${message.name}(message: ${message.name}): number`, [
    "let bytes = 0;",
    ...lines,
    "return bytes;",
  ]);
}

function lengthOf({ kind }: MessageField, value: string): string {
  return kind === "string" ? `Buffer.byteLength(${value})` : `${value}.length`;
}

function isSet(field: MessageField): string {
  const value = `message.${field.name}`;
  if (field.kind === "string" || field.kind === "bytes") return `${value}.length > 0`;
  return field.kind === "boolean" ? value : `${value} !== ${emptyValue(field)}`;
}

function writer(message: Message): string {
  const fields = fieldsOf(message);
  const isNumber = (field: MessageField): boolean => !field.repeated && tagOf(field) % 8 === 0;
  const lines = fields.flatMap((field, index) => {
    const value = `message.${field.name}`;
    const tag = tagOf(field);
    // Room for consecutive numbers is reserved at once.
    const isFirst = isNumber(field) && (index === 0 || !isNumber(fields[index - 1]!));
    const following = fields.slice(index).findIndex((one) => !isNumber(one));
    const count = following === -1 ? fields.length - index : following;
    const reserve = isFirst ? [`output.reserve(${count * 11});`] : [];
    return [...reserve, writeLine(field, fields, value, tag)];
  });
  return `export ${functionOf(`write${message.name}(output: FrameOutput, message: ${message.name}): void`, lines)}`;
}

function writeLine(field: MessageField, fields: readonly MessageField[], value: string, tag: number): string {
  if (field.kind === "message") {
    const nested = nestedName(field);
    const write = isSharedList(field, fields) ? "writeList" : "writeEach";
    return `${write}(output, ${value}, ${tag}, bytesOf${nested}, write${nested});`;
  }
  if (field.kind === "enum" && field.repeated) return `writePacked(output, ${tag}, ${value});`;
  const write = field.kind === "string" ? "writeText" : "writeBytes";
  if (field.repeated) return `for (const one of ${value}) ${write}(output, ${tag}, one);`;
  if (field.kind === "string" || field.kind === "bytes")
    return `if (${isSet(field)}) ${write}(output, ${tag}, ${value});`;
  const body = isDecimal(field)
    ? `writeDecimal(output, ${value});`
    : field.kind === "boolean"
      ? "output.block[output.at++] = 1;"
      : `if (${value} >= 0 && ${value} < 0x80) output.block[output.at++] = ${value};\n    else writeNumber(output, ${value});`;
  return `if (${isSet(field)}) {\n    output.block[output.at++] = ${tag};\n    ${body}\n  }`;
}

function functionOf(signature: string, lines: readonly string[]): string {
  return `function ${signature} {\n${lines.map((line) => `  ${line}\n`).join("")}}\n`;
}

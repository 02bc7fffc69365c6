import type { AnyDesc, DescFile } from "@bufbuild/protobuf";

/**
 * Mistake in the spec. buf prints the message and exits with a status other than zero.
 *
 * The message is `<file>: <element>: <problem>`, as in
 * `hawser/x/v1/y.proto: message Foo.bar: unknown column type "money"; use one of …`.
 */
export class SpecError extends Error {
  override readonly name = "SpecError";

  constructor(where: AnyDesc, problem: string) {
    const { name } = fileOf(where).proto;
    // A file name may contain line terminators, and the message must stay on one line.
    super(`${/[\p{C}\p{Zl}\p{Zp}]/u.test(name) ? JSON.stringify(name) : name}: ${elementOf(where)}: ${problem}`);
  }
}

/**
 * Mistake in another file of the spec, such as the JSON Schema of the NATS server's options, with the element as a JSON
 * pointer: `schema/nats-server-options.schema.json: #/properties/port: default 0 is …`.
 */
export class SchemaError extends Error {
  override readonly name = "SchemaError";

  constructor(file: string, pointer: string, problem: string) {
    super(`${file}: #${pointer}: ${problem}`);
  }
}

/** File that declares an element. */
export function fileOf(desc: AnyDesc): DescFile {
  switch (desc.kind) {
    case "file":
      return desc;
    case "field":
    case "oneof":
    case "rpc":
    case "enum_value":
      return desc.parent.file;
    default:
      return desc.file;
  }
}

/** Element as a reader of the file names it: `message Foo`, `message Foo.bar`, `rpc Service.Method`, … */
export function elementOf(desc: AnyDesc): string {
  switch (desc.kind) {
    case "file":
      return "file";
    case "message":
      return `message ${localPart(desc.typeName, desc.file)}`;
    case "field":
      return `message ${localPart(desc.parent.typeName, desc.parent.file)}.${desc.name}`;
    case "oneof":
      return `message ${localPart(desc.parent.typeName, desc.parent.file)}, oneof ${desc.name}`;
    case "enum":
      return `enum ${localPart(desc.typeName, desc.file)}`;
    case "enum_value":
      return `enum ${localPart(desc.parent.typeName, desc.parent.file)}.${desc.name}`;
    case "service":
      return `service ${desc.name}`;
    case "rpc":
      return `rpc ${desc.parent.name}.${desc.name}`;
    case "extension":
      return `extension ${desc.typeName}`;
  }
}

function localPart(typeName: string, file: DescFile): string {
  const prefix = `${file.proto.package}.`;
  return typeName.startsWith(prefix) ? typeName.slice(prefix.length) : typeName;
}

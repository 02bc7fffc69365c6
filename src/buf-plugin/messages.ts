/**
 * The few messages that buf and its check plugins exchange: `pluginrpc.v1` around `buf.plugin.check.v1`, read and written by
 * the numbers of their fields.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** The files of a module, with those that they import. */
export interface CheckedFile {
  readonly file: FileDescriptorProto;
  readonly isImport: boolean;
}

/** What buf asks. */
export interface CheckRequest {
  readonly files: readonly CheckedFile[];
  /** As they were. */
  readonly against: readonly CheckedFile[];
  /** The rules to check; empty: all of them. */
  readonly rules: readonly string[];
}

/** A rule of this plugin. */
export interface PluginRule {
  readonly id: string;
  readonly type: "lint" | "breaking";
  /** A sentence that begins with a capital letter. */
  readonly purpose: string;
}

/** A message that breaks a rule. */
export interface Annotation {
  readonly rule: string;
  readonly text: string;
  readonly file: string;
  /** Its place in the file's descriptor. */
  readonly path: readonly number[];
}

/** What the check has found, or why it could not be made. */
export type Result = { readonly annotations: readonly Annotation[] } | { readonly error: string };

const ruleTypes = { lint: 1, breaking: 2 } as const;
/** That of an argument which cannot be used. */
const invalidArgument = 3;

/** @param request a `pluginrpc.v1.Request` */
export function readCheckRequest(request: Uint8Array): CheckRequest {
  const value = fieldsOf(fieldsOf(request).get(1)?.[0] ?? new Uint8Array()).get(2)?.[0] ?? new Uint8Array();
  const fields = fieldsOf(value);
  return {
    files: (fields.get(1) ?? []).map(readFile),
    against: (fields.get(2) ?? []).map(readFile),
    rules: (fields.get(4) ?? []).map((id) => Buffer.from(id).toString()),
  };
}

function readFile(bytes: Uint8Array): CheckedFile {
  const fields = fieldsOf(bytes);
  const file = fromBinary(FileDescriptorProtoSchema, fields.get(1)?.[0] ?? new Uint8Array());
  return { file, isImport: (fields.get(2)?.[0]?.[0] ?? 0) !== 0 };
}

/** The values of fields by their numbers: of those with a length the bytes in them, of others the bytes as they stand. */
function fieldsOf(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, Uint8Array[]>();
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const value = wireType === WireType.LengthDelimited ? reader.bytes() : reader.skip(wireType, number);
    fields.set(number, [...(fields.get(number) ?? []), value]);
  }
  return fields;
}

/** A `pluginrpc.v1.Spec`. */
export function writeSpec(paths: readonly string[]): Uint8Array {
  const spec = new BinaryWriter();
  for (const path of paths) nested(spec, 1, (procedure) => text(procedure, 1, path));
  return spec.finish();
}

/** The answer to ListRules. */
export function writeRules(rules: readonly PluginRule[]): Uint8Array {
  return writeResponse("ListRulesResponse", (response) => {
    for (const { id, type, purpose } of rules) {
      nested(response, 2, (rule) => {
        text(rule, 1, id);
        rule.tag(3, WireType.Varint).bool(true);
        text(rule, 4, purpose);
        rule.tag(5, WireType.Varint).int32(ruleTypes[type]);
      });
    }
  });
}

/** The answer to ListCategories: there are none. */
export function writeCategories(): Uint8Array {
  return writeResponse("ListCategoriesResponse", () => undefined);
}

/** The answer to Check. */
export function writeCheckResponse(result: Result): Uint8Array {
  if ("error" in result) {
    const response = new BinaryWriter();
    nested(response, 2, (error) => {
      error.tag(1, WireType.Varint).int32(invalidArgument);
      text(error, 2, result.error);
    });
    return response.finish();
  }
  return writeResponse("CheckResponse", (response) => {
    for (const { rule, text: why, file, path } of result.annotations) {
      nested(response, 1, (annotation) => {
        text(annotation, 1, rule);
        text(annotation, 2, why);
        nested(annotation, 3, (location) => {
          text(location, 1, file);
          for (const step of path) location.tag(2, WireType.Varint).int32(step);
        });
      });
    }
  });
}

function writeResponse(name: string, write: (writer: BinaryWriter) => void): Uint8Array {
  const value = new BinaryWriter();
  write(value);
  const response = new BinaryWriter();
  nested(response, 1, (any) => {
    text(any, 1, `type.googleapis.com/buf.plugin.check.v1.${name}`);
    any.tag(2, WireType.LengthDelimited).bytes(value.finish());
  });
  return response.finish();
}

function nested(writer: BinaryWriter, number: number, write: (writer: BinaryWriter) => void): void {
  writer.tag(number, WireType.LengthDelimited).fork();
  write(writer);
  writer.join();
}

function text(writer: BinaryWriter, number: number, value: string): void {
  writer.tag(number, WireType.LengthDelimited).string(value);
}

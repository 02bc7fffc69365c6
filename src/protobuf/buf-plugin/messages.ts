/**
 * Messages that buf and its check plugins exchange: `pluginrpc.v1` around `buf.plugin.check.v1`, read and written by
 * field number.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** File of a module, or one that it imports. */
export interface CheckedFile {
  readonly file: FileDescriptorProto;
  readonly isImport: boolean;
}

/** Check request of buf. */
export interface CheckRequest {
  readonly files: readonly CheckedFile[];
  /** Files of the earlier version. */
  readonly against: readonly CheckedFile[];
  /** Ids of the rules to check; empty for all. */
  readonly rules: readonly string[];
}

/** Rule of this plugin. */
export interface PluginRule {
  readonly id: string;
  readonly type: "lint" | "breaking";
  /** Sentence that begins with a capital letter. */
  readonly purpose: string;
}

/** Message that breaks a rule. */
export interface Annotation {
  readonly rule: string;
  readonly text: string;
  readonly file: string;
  /** Path of the message in the file's descriptor. */
  readonly path: readonly number[];
}

/** Annotations of a check, or the error that prevented the check. */
export type Result = { readonly annotations: readonly Annotation[] } | { readonly error: string };

const ruleTypes = { lint: 1, breaking: 2 } as const;
/** Error code for an invalid argument. */
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

/** Values of fields by number: the contents of length-delimited fields, the raw bytes of others. */
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

/** Writes a `pluginrpc.v1.Spec`. */
export function writeSpec(paths: readonly string[]): Uint8Array {
  const spec = new BinaryWriter();
  for (const path of paths) nested(spec, 1, (procedure) => text(procedure, 1, path));
  return spec.finish();
}

/** Writes the answer to ListRules. */
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

/** Writes the answer to ListCategories, which is empty. */
export function writeCategories(): Uint8Array {
  return writeResponse("ListCategoriesResponse", () => undefined);
}

/** Writes the answer to Check. */
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

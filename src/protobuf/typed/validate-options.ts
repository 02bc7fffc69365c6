/**
 * Options of `buf.validate`. They are made when they are first used, for the first schema of a user: that takes 10 ms, as
 * much as anything else that is done while this package is imported, and most processes have no typed messages.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { fileDesc } from "@bufbuild/protobuf/codegenv2";
import {
  file_google_protobuf_descriptor,
  file_google_protobuf_duration,
  file_google_protobuf_timestamp,
} from "@bufbuild/protobuf/wkt";
import type { field, message, oneof } from "../../../generated/ts/options/buf/validate/validate_pb.js";
import { validateFile } from "../../../generated/ts/validate-options/file.js";

/** Extensions of the options of messages, fields and oneofs, and the schemas of what they consist of. */
interface ValidateOptions {
  readonly message: typeof message;
  readonly field: typeof field;
  readonly oneof: typeof oneof;
  /** By the name of the rules: `message`, an empty one for those of a field, and within these `string`, `repeated`, … */
  readonly schemas: ReadonlyMap<string, DescMessage>;
}

let made: ValidateOptions | undefined;

export function validateOptions(): ValidateOptions {
  made ??= make();
  return made;
}

function make(): ValidateOptions {
  const imports = [file_google_protobuf_descriptor, file_google_protobuf_duration, file_google_protobuf_timestamp];
  const file = fileDesc(validateFile, imports);
  const extension = (name: string): unknown => file.extensions.find((each) => each.name === name);
  const schema = (name: string): DescMessage => file.messages.find((each) => each.name === name)!;
  const ofTypes = schema("FieldRules").fields.flatMap((each) =>
    each.oneof !== undefined && each.message !== undefined ? [[each.name, each.message] as const] : [],
  );
  return {
    message: extension("message") as typeof message,
    field: extension("field") as typeof field,
    oneof: extension("oneof") as typeof oneof,
    schemas: new Map([["", schema("FieldRules")], ["message", schema("MessageRules")], ...ofTypes]),
  };
}

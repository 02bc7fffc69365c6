import { embedFileDesc } from "@bufbuild/protobuf/codegenv2";
import type { Spec } from "../model/spec.js";
import { SchemaError } from "../model/spec-error.js";
import type { GeneratedFile } from "../plugin.js";
import { typescriptHead } from "../print.js";

const path = "buf/validate/validate.proto";

/** Generates the descriptor of `buf.validate` as text, from which `src/protobuf/typed` makes the options when it first needs them. */
export function generateValidateOptions(spec: Spec): GeneratedFile[] {
  const source = spec.files.find(({ file }) => file.proto.name === path);
  if (source === undefined) throw new SchemaError(path, "", "is missing");
  const embedded = embedFileDesc(source.file.proto);
  if (embedded.bootable) throw new SchemaError(path, "", "cannot be embedded");
  const content = `${typescriptHead("codegen/validate-options", [source])}
/** FileDescriptorProto of ${path} without comments, in base64. */
export const validateFile =
  ${JSON.stringify(embedded.base64())};
`;
  return [{ path: "file.ts", content }];
}

/**
 * Checks file names and `json_name`, for which protobuf-es accepts any text; it rejects other names that are not
 * identifiers. protoc and buf refuse such text, but another program can send the CodeGeneratorRequest. Both names are
 * printed in comments and strings, so text that would break out of them is refused.
 */
import type { DescFile, DescMessage } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** Control characters, line terminators, and unpaired surrogates. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/u;

/** @throws SpecError at the first invalid name */
export function checkNames(files: Iterable<DescFile>): void {
  for (const file of files) {
    const { name } = file.proto;
    if (unprintable.test(name) || name.includes("\\") || name.split("/").some((part) => /^\.{0,2}$/.test(part))) {
      const rule = "must be a relative path of printable characters, without backslashes, . and ..; rename the file";
      throw new SpecError(file, `the file name ${JSON.stringify(name)}: ${rule}`);
    }
    file.messages.forEach(checkJsonNames);
  }
}

function checkJsonNames({ fields, nestedMessages }: DescMessage): void {
  for (const field of fields) {
    if (!unprintable.test(field.jsonName)) continue;
    const rule = "must have no control characters; choose another";
    throw new SpecError(field, `the json_name ${JSON.stringify(field.jsonName)}: ${rule}`);
  }
  nestedMessages.forEach(checkJsonNames);
}

/**
 * A check of file names and of `json_name`. protobuf-es refuses packages, messages, fields and values whose names are no
 * identifiers, but takes any text for these two. protoc and buf compile no such text, but a request to the plugin may come from
 * another program. Both names are printed in comments and strings, so text that cannot stand there is refused.
 */
import type { DescFile, DescMessage } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** Control characters and ends of lines; half of a surrogate pair. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/u;

/** @throws SpecError */
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

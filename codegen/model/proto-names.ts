/**
 * What protobuf-es does not check in descriptors: it refuses packages, messages, fields and values whose names are no
 * identifiers, but takes any text for the name of a file and for `json_name`. protoc and buf compile no such thing; a plugin
 * takes its request from whoever runs it. Both are printed in comments and strings, so what cannot stand there is refused.
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

import type { DescField } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** @throws SpecError if a field has an option that is never read in its message */
export function refuseOption(field: DescField, name: "column" | "setting", option: object | undefined): void {
  if (option === undefined) {
    return;
  }
  const place = name === "column" ? "the message of a table or of a function" : "a message with the option settings";
  throw new SpecError(field, `the option ${name} has no meaning here; it belongs in ${place}`);
}

import type { DescField } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** Messages in which each option has a meaning. */
const places = {
  column: "the message of a table or of a function",
  setting: "a message with the option settings",
  metric: "a message with the option metrics",
} as const;

/** @throws SpecError if a field has an option that is never read in its message */
export function refuseOption(field: DescField, name: keyof typeof places, option: object | undefined): void {
  if (option === undefined) {
    return;
  }
  throw new SpecError(field, `the option ${name} has no meaning here; it belongs in ${places[name]}`);
}

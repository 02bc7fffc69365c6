import type { DescEnum, DescEnumValue, DescFile } from "@bufbuild/protobuf";
import { commentLineOf, commentOf } from "./comments.js";
import type { ErrorOption, SpecOptions } from "./options.js";
import { SpecError } from "./spec-error.js";

/** Errors of one enum. */
export interface ErrorTable {
  readonly enumeration: DescEnum;
  readonly comment: string;
  readonly errors: readonly ErrorEntry[];
}

export interface ErrorEntry {
  readonly value: DescEnumValue;
  /** Stable code: the value's name in lower case, without the enum's prefix. */
  readonly code: string;
  /** Number in frames: the value's number. */
  readonly wireCode: number;
  readonly sqlstate: string;
  readonly exitStatus: number;
  readonly retryable: boolean;
  readonly summary: string;
  readonly remedy: string;
  /** Call after which programs check for the code; empty for a code that is meant for people. */
  readonly branchAfter: string;
}

/**
 * Exit statuses of the command for errors, with their meanings. There are few, so that supervisors and scripts can know
 * all of them (docs/decisions/api.md). 0 and 1 do not come from an error.
 */
const exitStatuses: ReadonlyMap<number, string> = new Map([
  [64, "usage"],
  [69, "away"],
  [70, "failed"],
  [73, "taken"],
  [75, "again"],
  [77, "rights"],
  [78, "set-up"],
]);

/**
 * Reads the errors of a file: the details are options of the file, the enums may be those of other files of its package.
 *
 * @param enums all enums of the package
 */
export function readErrorTables(file: DescFile, enums: readonly DescEnum[], options: SpecOptions): ErrorTable[] {
  const details = new Map(options.errors(file).map((option) => [option.code, option]));
  const tables = enums
    .filter(({ values }) => values.some((value) => details.has(codeOf(value))))
    .map((enumeration) => readErrorTable(enumeration, details));
  const known = new Set(tables.flatMap(({ errors }) => errors.map(({ code }) => code)));
  const unknown = [...details.keys()].find((code) => !known.has(code));
  if (unknown !== undefined) {
    throw new SpecError(file, `error "${unknown}" is no value of an enum of ${file.proto.package}`);
  }
  return tables;
}

function readErrorTable(enumeration: DescEnum, details: ReadonlyMap<string, ErrorOption>): ErrorTable {
  const errors: ErrorEntry[] = [];
  for (const value of enumeration.values) {
    const option = details.get(codeOf(value));
    if (value.number === 0) {
      if (option !== undefined) {
        throw new SpecError(value, "number 0 means no error; give the error another number");
      }
      continue;
    }
    if (option === undefined) {
      throw new SpecError(value, `the error has no details; give the option error with code: "${codeOf(value)}"`);
    }
    const twin = errors.find((error) => error.wireCode === value.number);
    if (twin !== undefined) {
      throw new SpecError(value, `wire code ${value.number} is taken by ${twin.code}`);
    }
    errors.push(readError(value, option));
  }
  return { enumeration, comment: commentOf(enumeration), errors };
}

function readError(value: DescEnumValue, option: ErrorOption): ErrorEntry {
  if (!/^[0-9A-Z]{5}$/.test(option.sqlstate) || option.sqlstate.startsWith("00")) {
    throw new SpecError(
      value,
      `sqlstate "${option.sqlstate}" is not five of 0-9 and A-Z, or means success; choose one of the class that fits`,
    );
  }
  if (!exitStatuses.has(option.exitStatus)) {
    const known = [...exitStatuses].map(([status, meaning]) => `${status} ${meaning}`).join(", ");
    throw new SpecError(value, `exit_status ${option.exitStatus} is none of ${known}`);
  }
  const summary = commentLineOf(value);
  if (summary === "") throw new SpecError(value, "the error has no comment, which says what happened");
  if (option.remedy === "") throw new SpecError(value, "the error has no remedy");
  return {
    value,
    code: option.code,
    wireCode: value.number,
    sqlstate: option.sqlstate,
    exitStatus: option.exitStatus,
    retryable: option.retryable,
    summary,
    remedy: option.remedy,
    branchAfter: option.branchAfter,
  };
}

/** `ERROR_CODE_NOT_RUNNING` of `ErrorCode` → `not_running`. */
function codeOf(value: DescEnumValue): string {
  const prefix = `${value.parent.name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toUpperCase()}_`;
  const name = value.name.startsWith(prefix) ? value.name.slice(prefix.length) : value.name;
  return name.toLowerCase();
}

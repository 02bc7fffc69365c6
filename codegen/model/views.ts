import type { DescMessage } from "@bufbuild/protobuf";
import { type Column, readValueColumns } from "./columns.js";
import { commentOf } from "./comments.js";
import { readSqlPath } from "./functions.js";
import { sqlIdentifier } from "./names.js";
import type { SpecOptions, ViewOption } from "./options.js";
import { knownRole } from "./roles.js";
import { SpecError } from "./spec-error.js";

/** View of the schema `hawser`. */
export interface View {
  readonly message: DescMessage;
  readonly name: string;
  readonly comment: string;
  readonly columns: readonly Column[];
  /** Path of the query's file, relative to the root of the project. */
  readonly queryFile: string;
  /** Roles that may read the view. */
  readonly select: readonly string[];
}

/** Reads the view that a message describes. @throws SpecError if the view has no column, or names an unknown role */
export function readView(message: DescMessage, option: ViewOption, options: SpecOptions): View {
  const columns = readValueColumns(message, options, false);
  if (columns.length === 0) {
    throw new SpecError(message, `view "${option.name}" has no column; give the message a field`);
  }
  return {
    message,
    name: sqlIdentifier(message, "view name", option.name),
    comment: commentOf(message),
    columns,
    queryFile: readSqlPath(message, "query_file", option.queryFile),
    select: option.select.map((role) => knownRole(message, role)),
  };
}

import { posix } from "node:path";
import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { checkNames } from "../model/proto-names.js";
import type { GeneratedFile } from "../plugin.js";
import { migrationOf } from "./migration.js";
import { readModel } from "./model.js";
import { readOptions } from "./options.js";

/**
 * Makes the SQL of users' messages: a file for each directory of protos that has a message with a topic, or one for all that
 * buf asks for. Each is complete: what the messages of two directories have in common stands in both.
 *
 * @param parameter the options of the plugin, as in `schema=shop,role=web`
 * @throws SpecError for what SQL cannot have, and for names that are none, HawserError `invalid_schema` for a topic or rule that cannot be used,
 * OptionError
 */
export function generateMessageSql(
  registry: FileRegistry,
  files: readonly DescFile[],
  parameter: string,
): GeneratedFile[] {
  checkNames(registry.files);
  const options = readOptions(parameter);
  const whole = readModel(files, options);
  if (whole.messages.length === 0) return [];
  if (options.file !== undefined) return [{ path: options.file, content: migrationOf(whole) }];
  const directories = new Set(whole.files.map((name) => posix.dirname(name)));
  return [...directories].map((directory) => {
    const inDirectory = files.filter((file) => posix.dirname(file.proto.name) === directory);
    return { path: posix.join(directory, "messages.sql"), content: migrationOf(readModel(inDirectory, options)) };
  });
}

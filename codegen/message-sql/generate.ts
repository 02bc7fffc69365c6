import { posix } from "node:path";
import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { checkNames } from "../model/proto-names.js";
import type { GeneratedFile } from "../plugin.js";
import { migrationOf } from "./migration.js";
import { readModel } from "./model.js";
import { readOptions } from "./options.js";

/**
 * Generates the SQL of users' messages: a file for each directory of protos with a message that has a topic, or a
 * single file. Each file is complete; definitions that two directories share are in both.
 *
 * @param parameter the options of the plugin, as in `schema=shop,role=web`
 * @throws SpecError for anything that SQL cannot represent, and for invalid names
 * @throws HawserError `invalid_schema` for an invalid topic or rule
 * @throws OptionError for an invalid option
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

#!/usr/bin/env node
/**
 * `protoc-gen-hawser-sql`: plugin of `buf generate` that generates SQL from a user's messages. docs/typed-sql.md lists
 * its options.
 */
import { HawserError } from "../../src/foundation/errors/index.js";
import { SpecError } from "../model/spec-error.js";
import { runPlugin } from "../plugin.js";
import { generateMessageSql } from "./generate.js";
import { OptionError } from "./options.js";

await runPlugin(generateMessageSql, [SpecError, HawserError, OptionError]);

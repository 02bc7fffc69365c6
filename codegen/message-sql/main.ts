#!/usr/bin/env node
/** `protoc-gen-hawser-sql`: the plugin of `buf generate` that makes SQL of a user's messages. docs/typed-sql.md has its options. */
import { HawserError } from "../../src/errors/index.js";
import { SpecError } from "../model/spec-error.js";
import { runPlugin } from "../plugin.js";
import { generateMessageSql } from "./generate.js";
import { OptionError } from "./options.js";

await runPlugin(generateMessageSql, [SpecError, HawserError, OptionError]);

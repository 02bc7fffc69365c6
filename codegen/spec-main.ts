#!/usr/bin/env node
import { SpecError } from "./model/spec-error.js";
import { runPlugin } from "./plugin.js";
/**
 * `protoc-gen-hawser-spec`: the plugin of `buf generate` for protos with the options of `hawser.spec.v1`, outside of this
 * project. docs/codegen.md says what it makes.
 */
import { generateSpecParts } from "./spec-parts.js";

await runPlugin(generateSpecParts, [SpecError]);

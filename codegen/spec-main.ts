#!/usr/bin/env node
import { SpecError } from "./model/spec-error.js";
import { runPlugin } from "./plugin.js";
/**
 * `protoc-gen-hawser-spec`: plugin of `buf generate` for protos of other projects that use the options of
 * `hawser.spec.v1`. docs/codegen.md lists its output.
 */
import { generateSpecParts } from "./spec-parts.js";

await runPlugin(generateSpecParts, [SpecError]);

/**
 * `npm run verify`: the spec is well-formed, keeps its promises to the last release, and `generated/` is what it makes.
 *
 * Every step prints one line; a failed one what is wrong and what to do. A step is a function below scripts/verify/:
 * add it to the list.
 */
import { apiStep } from "./verify/api.js";
import { breakingStep } from "./verify/breaking.js";
import { formatStep } from "./verify/format.js";
import { generatedStep } from "./verify/generated.js";
import { lintStep } from "./verify/lint.js";
import { schemaStep } from "./verify/schema.js";
import { runSteps } from "./verify/step.js";

const ok = await runSteps([lintStep, formatStep, generatedStep, apiStep, breakingStep, schemaStep]);
process.exitCode = ok ? 0 : 1;

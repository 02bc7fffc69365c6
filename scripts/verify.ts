/**
 * `npm run verify`: checks that the spec is well-formed and compatible with the last release, and that `generated/`,
 * `api/` and `docs/pictures/` are up to date.
 *
 * Every step prints one line; a failed step adds the problem and its remedy. A step is a function below
 * scripts/verify/: add it to the list.
 */
import { apiStep } from "./verify/api.js";
import { breakingStep } from "./verify/breaking.js";
import { formatStep } from "./verify/format.js";
import { generatedStep } from "./verify/generated.js";
import { lintStep } from "./verify/lint.js";
import { picturesStep } from "./verify/pictures.js";
import { schemaStep } from "./verify/schema.js";
import { runSteps } from "./verify/step.js";

const ok = await runSteps([lintStep, formatStep, generatedStep, apiStep, picturesStep, breakingStep, schemaStep]);
process.exitCode = ok ? 0 : 1;

/** Last part of `npm run lint`: imports must follow the layers of `scripts/layers/rules.ts`. */
import { fileURLToPath } from "node:url";
import { checkLayers } from "./layers/check.js";

const { files, imports, violations } = checkLayers(fileURLToPath(new URL("..", import.meta.url)));
for (const violation of violations) console.error(violation);
console.log(`Layers: ${files} files, ${imports} imports, ${violations.length} against the rules.`);
process.exitCode = violations.length === 0 ? 0 : 1;

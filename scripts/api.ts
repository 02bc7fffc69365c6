/**
 * `npm run api`: writes the API report, `api/*.api.md`. `npm run verify` compares it with the declarations.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { apiReports } from "./api/report.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const reports = await apiReports(root);
rmSync(join(root, "api"), { recursive: true, force: true });
mkdirSync(join(root, "api"));
for (const { entryPoint, file, names, text } of reports) {
  writeFileSync(join(root, "api", file), text);
  console.log(`${String(names).padStart(4)} ${entryPoint}`);
}

/**
 * `npm run check-package`: packs the package as `npm publish` does, without a build, and checks the tarball. `npm run
 * prepack` runs it after the build, so that nothing is published that fails here.
 */
import { fileURLToPath } from "node:url";
import { checkPackage } from "./package/check.js";

const { problems, files, bytes } = await checkPackage(fileURLToPath(new URL("..", import.meta.url)));
for (const problem of problems) console.error(problem);
console.log(`Package: ${files} files, ${(bytes / 1e6).toFixed(2)} MB unpacked, ${problems.length} problems.`);
process.exitCode = problems.length === 0 ? 0 : 1;

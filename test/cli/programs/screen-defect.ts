/** Shows a screen, and then throws where nobody catches. */
import { Screen } from "../../../src/operating/cli/screen.js";

new Screen({ onKey: () => undefined, onResize: () => undefined }).draw(["shown"]);
setImmediate(() => {
  throw new Error("a defect for a test");
});

/** `npm run pictures`: draws `docs/pictures/` from the sources, and writes the alternative texts of the pages. */
import { fileURLToPath } from "node:url";
import { writePictures } from "./pictures/files.js";

writePictures(fileURLToPath(new URL("..", import.meta.url)));

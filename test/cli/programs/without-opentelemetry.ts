/** Loaded before `hawser`: packages of OpenTelemetry are resolved from a directory that has none. */
import { register } from "node:module";

const hooks = `export const resolve = (specifier, context, next) =>
  next(specifier, specifier.startsWith("@opentelemetry/") ? { ...context, parentURL: "file:///nowhere/x.js" } : context);`;

register(`data:text/javascript,${encodeURIComponent(hooks)}`);

/** Options of a fast test that starts several processes, or a pass over all objects: busy machines take ten times as long. */
export const longTest = { timeout: 180_000 };

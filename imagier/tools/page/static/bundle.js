// What bundle.json says of the network: its inputs, its output, examples.

const VERSION = 1;

/** The content of bundle.json. Throws an Error that a person can read. */
export async function loadBundle(url = "bundle.json") {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url} is not there (HTTP ${response.status}); write the page again`);
  const bundle = await response.json();
  if (bundle.imagier_bundle !== VERSION) {
    throw new Error(`${url} is of version ${bundle.imagier_bundle}; this page reads version ${VERSION}`);
  }
  return bundle;
}

/** The first input with one of these roles, or undefined. */
export function findInput(bundle, ...roles) {
  return bundle.inputs.find(({ role }) => roles.includes(role));
}

/** The parts of an input: those of a label, or the image that it is. */
export function partsOf(input) {
  return input.parts ?? [{ kind: "image", channels: input.shape[1], ...input }];
}

/** Where a sample's file for a part of a label, or for an image, is. */
export function sampleFile(sample, part) {
  return sample.inputs?.[part.type] ?? sample.input;
}

/** The class of a channel, of a part with classes; a class without a name gets its number. */
export function classesOf(part) {
  return part.classes.map(({ id, name, color }, channel) => ({
    id,
    channel,
    name: name ?? `class ${id}`,
    color: color ?? [128, 128, 128],
  }));
}

/**
 * Raw ids -> channels of a part with classes. An id that is no class becomes the channel for the rest if the part has
 * one, and otherwise `channels`, which is none.
 */
export function idsToChannels(ids, part) {
  const channels = new Map(part.classes.map(({ id }, channel) => [id, channel]));
  const rest = part.ignored === "last channel" ? part.channels - 1 : part.channels;
  const largest = part.largest_id ?? Infinity; // ids above it count as it
  return ids.map((id) => channels.get(Math.min(id, largest)) ?? rest);
}

/** Channels -> raw ids; what is no class becomes 255, the id of nothing. */
export function channelsToIds(channels, part) {
  return channels.map((channel) => part.classes[channel]?.id ?? 255);
}

//! Reports for people: disassembly, and what the profiler found.

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};

use ringfence_engine::{HotBlock, ProfileReport};

use crate::runtime::core::Core;
use crate::runtime::profile::PHASES;

/// An instruction with its address and bytes.
pub fn line(instruction: &Instruction, bytes: &[u8]) -> String {
    let mut line = format!("{:016x}  ", instruction.ip());
    for byte in bytes.iter().take(instruction.len()) {
        let _ = write!(line, "{byte:02x}");
    }
    let mut text = String::new();
    FastFormatter::new().format(instruction, &mut text);
    format!("{line:<50}{text}")
}

/// Disassembly of `bytes`, which are at `address`, in code of `bits` bits.
pub fn listing(bits: u32, address: u64, bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
    let mut lines = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        let instruction = decoder.decode();
        lines.push(line(&instruction, &bytes[start..]));
    }
    lines
}

/// What the profiler of `core` has found, with listings of the `most` hottest blocks.
pub fn profile(core: &Core, most: usize) -> ProfileReport {
    let (phases, places) = core.profiler.samples();
    let cache = &core.cache;
    let (first, cold) = cache.parts();
    let mut samples = vec![0_u64; cache.blocks.len()];
    let (mut stubs, mut slow_paths, mut translated) = (0, 0, 0);
    for &(host, count) in &places {
        let count = u64::from(count);
        if host + 15 < first {
            stubs += count;
        } else if host >= cold {
            slow_paths += count;
        } else if let Some(id) = cache.block_at(host + 15) {
            samples[id as usize] += count;
            translated += count;
        }
    }
    let code = [
        ("translated", translated),
        ("slow_paths", slow_paths),
        ("stubs", stubs),
    ];
    let phases = PHASES.into_iter().zip(phases.map(u64::from));
    let mut order: Vec<usize> = (0..samples.len()).filter(|&i| samples[i] != 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(samples[i]));
    let blocks = order.iter().take(most).map(|&i| {
        let block = &cache.blocks[i];
        let mode = block.key.mode;
        let length = block.high.saturating_sub(block.low).min(0x1000) as usize;
        let mut bytes = vec![0; length];
        let memory = core.world.phys.memory();
        let guest = match memory.read(block.low, &mut bytes) {
            Ok(()) => {
                let address = block.key.linear & !0xfff | block.low & 0xfff;
                listing(mode.bits(), address, &bytes)
            }
            Err(_) => Vec::new(),
        };
        HotBlock {
            linear: block.key.linear,
            user: mode.class() == 1,
            samples: samples[i],
            guest,
            host: host_listing(core, i, &places),
        }
    });
    ProfileReport {
        phases: code.into_iter().chain(phases).collect(),
        blocks: blocks.collect(),
    }
}

fn host_listing(core: &Core, index: usize, places: &[(u64, u32)]) -> Vec<String> {
    let bytes = core.cache.host_code(index);
    let start = core.cache.blocks[index].entry as u64;
    let mut told = 0;
    listing(64, start, bytes)
        .into_iter()
        .map(|text| {
            let address = u64::from_str_radix(&text[..16], 16).unwrap_or(0);
            let bucket = address & !15;
            let mut count = 0;
            if bucket != told {
                told = bucket;
                count = places
                    .binary_search_by_key(&bucket, |place| place.0)
                    .map_or(0, |i| places[i].1);
            }
            if count == 0 {
                format!("{:>8}  {text}", "")
            } else {
                format!("{count:>8}  {text}")
            }
        })
        .collect()
}

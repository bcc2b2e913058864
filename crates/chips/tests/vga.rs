//! Memory and pictures of the VGA under accesses and plans that no program would make.

use std::sync::Arc;

use proptest::prelude::*;
use ringfence_chips::vga::{
    Frame, Kind, LARGEST, PixelFormat, Plan, Rect, Source, TEXT_SIZE, Text, Vga,
};
use ringfence_engine::Clock;
use ringfence_memory::Memory;

fn vga() -> Vga {
    let memory = Memory::new(0x40000).unwrap();
    let text = Memory::new(TEXT_SIZE).unwrap();
    Vga::new(memory, text, Arc::new(Clock::new()))
}

fn kind() -> impl Strategy<Value = Kind> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    prop_oneof![
        Just(Kind::Blank),
        Just(Kind::Planar),
        Just(Kind::Pairs),
        Just(Kind::Bytes),
        prop_oneof![Just(8), Just(15), Just(16), Just(24), Just(32), Just(99)]
            .prop_map(Kind::Linear),
        (0..20u32, numbers, any::<bool>(), 0..64u32).prop_map(|(dots, n, flag, underline)| {
            Kind::Text(Text {
                dots,
                fonts: (n.0, n.1),
                line_graphics: flag,
                blink: flag,
                lit: !flag,
                cursor: n,
                underline,
            })
        }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let size = (0..80u32, 0..80u32);
    let places = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let small = (0..5u32, 0..5u32, 0..70u32, 0..70u32, 0..20u32);
    let rest = (0..5u32, any::<u32>(), any::<bool>(), any::<bool>());
    (kind(), size, places, small, rest).prop_map(|(kind, size, places, small, rest)| Plan {
        kind,
        width: size.0,
        height: size.1,
        start: places.0,
        pitch: places.1,
        split: places.2 % 200,
        split_pans: rest.2,
        repeat: small.0,
        double: small.1,
        row: small.2,
        preset: small.3,
        panning: small.4,
        shift: (rest.0, rest.1),
        row_bits: (rest.2, rest.3),
        mask: places.3,
        palette: vec![1, 2, 3],
    })
}

proptest! {
    #[test]
    fn any_access_stays_in_the_memory(
        registers in any::<[u8; 16]>(),
        misc in any::<u8>(),
        bank in proptest::option::of((any::<usize>(), any::<bool>())),
        accesses in proptest::collection::vec((0u64..0x20010, 1u8..9, any::<u64>()), 1..40),
    ) {
        let vga = vga();
        vga.set_registers(registers);
        vga.set_misc(misc);
        vga.set_bank(bank.map(|(bank, linear)| (bank % (1 << 40), linear)));
        for (offset, size, value) in accesses {
            vga.write(0xa0000 + offset, size, value);
            let read = vga.read(0xa0000 + offset, size);
            prop_assert!(size == 8 || read >> (8 * size) == 0);
        }
        if let Some((_, size, offset)) = vga.direct() {
            prop_assert!(offset as u64 + size <= vga.memory().size());
        }
        vga.enter_text();
        vga.sync_text(true);
    }

    #[test]
    fn any_plan_gives_a_picture(plans in proptest::collection::vec(plan(), 1..6)) {
        let vga = vga();
        let mut frame = Frame::default();
        for plan in plans {
            let source = Source::Memory(vga.bytes());
            let (_, parts) = frame.draw_scrolled(source, &plan);
            prop_assert_eq!(frame.size(), (plan.width.min(LARGEST), plan.height.min(LARGEST)));
            for part in parts {
                prop_assert!(part.x + part.width <= plan.width);
                prop_assert!(part.y + part.height <= plan.height);
            }
            frame.draw(Source::Bytes(&[1, 2, 3]), &plan);
        }
    }

    /// A viewer that applies what it is told shows the picture.
    #[test]
    fn moves_and_parts_make_the_next_picture(
        lines in proptest::collection::vec(0u32..6, 160),
        distance in 0usize..40,
        noise in 0usize..64,
    ) {
        let picture = |from: usize| -> Vec<u8> {
            (from..from + 100)
                .flat_map(|line| {
                    let color = lines[line] * 77 + (line as u32 * 31 % 17);
                    let wild = if line % 64 == noise { from as u32 } else { 0 };
                    (0..4u32).flat_map(move |x| (color + x + wild).to_le_bytes())
                })
                .collect()
        };
        let plan = Plan {
            kind: Kind::Linear(32),
            width: 4,
            height: 100,
            start: 0,
            pitch: 16,
            split: u32::MAX,
            split_pans: false,
            repeat: 1,
            double: 1,
            row: 1,
            preset: 0,
            panning: 0,
            shift: (0, 0),
            row_bits: (false, false),
            mask: 0,
            palette: Vec::new(),
        };
        let mut frame = Frame::default();
        frame.draw_scrolled(Source::Bytes(&picture(0)), &plan);
        let everything = Rect { x: 0, y: 0, width: 4, height: 100 };
        let mut shown: Vec<Vec<u32>> = frame.part(everything).map(<[u32]>::to_vec).collect();
        let (scroll, parts) = frame.draw_scrolled(Source::Bytes(&picture(distance)), &plan);
        if let Some(scroll) = scroll {
            let before = shown.clone();
            for line in 0..scroll.lines as usize {
                shown[scroll.to as usize + line] = before[scroll.from as usize + line].clone();
            }
        }
        for part in parts {
            for (y, line) in (part.y as usize..).zip(frame.part(part)) {
                shown[y][part.x as usize..(part.x + part.width) as usize].copy_from_slice(line);
            }
        }
        let wanted: Vec<Vec<u32>> = frame.part(everything).map(<[u32]>::to_vec).collect();
        prop_assert_eq!(shown, wanted);
    }

    #[test]
    fn any_format_can_be_asked_for(
        size in 1usize..5,
        big_endian in any::<bool>(),
        largest in any::<[u32; 3]>(),
        shift in any::<[u32; 3]>(),
        x in any::<u32>(),
        width in any::<u32>(),
    ) {
        let frame = Frame::default();
        let format = PixelFormat { size, big_endian, largest, shift };
        let rect = Rect { x, y: 0, width, height: u32::MAX };
        prop_assert!(frame.packed(rect, &format).is_empty());
        prop_assert!(frame.zrle(rect, &format).is_empty());
    }
}

//! Where state components are in an XSAVE area (Intel SDM volume 1, 13.4 and 13.5).

/// Bytes of the legacy region and the header, which all areas have.
pub const EXTENDED_REGION: usize = 576;

/// State components by number (Intel SDM volume 1, 13.1).
pub mod component {
    pub const X87: u32 = 0;
    pub const SSE: u32 = 1;
    pub const AVX: u32 = 2;
    pub const OPMASK: u32 = 5;
    pub const ZMM_HIGH: u32 = 6;
    pub const HIGH_ZMM: u32 = 7;
    pub const PKRU: u32 = 9;
    pub const CET_USER: u32 = 11;
    pub const CET_SUPERVISOR: u32 = 12;
    pub const TILE_CONFIGURATION: u32 = 17;
    pub const TILE_DATA: u32 = 18;
}

/// One component of the extended region: CPUID leaf 0xd, subleaf 2 and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XsaveComponent {
    /// Size in bytes; 0 when the component does not exist.
    pub size_bytes: usize,
    /// Where it is in the standard form.
    pub offset_bytes: usize,
    /// Whether it starts on a multiple of 64 bytes in the compacted form.
    pub aligned: bool,
}

/// The components that a guest can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XsaveLayout {
    user: u64,
    components: [XsaveComponent; 63],
}

impl XsaveLayout {
    /// Reads the layout from CPUID leaf 0xd: `leaf` gives EAX, EBX, ECX, EDX of a subleaf.
    pub fn from_cpuid(leaf: impl Fn(u32) -> [u32; 4]) -> Self {
        let [eax, _, _, edx] = leaf(0);
        // x87 and SSE are everywhere.
        let user = u64::from(eax) | u64::from(edx) << 32 | 3;
        let mut components = [XsaveComponent::default(); 63];
        for (number, component) in (0..63u32).zip(components.iter_mut()).skip(2) {
            if user & 1u64.wrapping_shl(number) != 0 {
                let [size, offset, flags, _] = leaf(number);
                *component = XsaveComponent {
                    size_bytes: usize::try_from(size).unwrap_or(0),
                    offset_bytes: usize::try_from(offset).unwrap_or(0),
                    aligned: flags & 2 != 0,
                };
            }
        }
        // Components of supervisors that are MSRs and nothing else: their sizes are the architecture's (13.5.9).
        for (number, size) in [(component::CET_USER, 16), (component::CET_SUPERVISOR, 24)] {
            let place = usize::try_from(number).unwrap_or(0);
            if let Some(component) = components.get_mut(place) {
                let [_, _, flags, _] = leaf(number);
                *component = XsaveComponent {
                    size_bytes: size,
                    offset_bytes: 0,
                    aligned: flags & 2 != 0,
                };
            }
        }
        Self { user, components }
    }

    /// The bits that XCR0 can have.
    pub const fn user_components(&self) -> u64 {
        self.user
    }

    /// Component `number`, 2 to 62.
    pub(crate) fn component(&self, number: u32) -> XsaveComponent {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.components.get(number).copied())
            .unwrap_or_default()
    }

    /// Where component `number` is in the compacted form of an area with the components `map`.
    pub(crate) fn compacted_offset(&self, map: u64, number: u32) -> usize {
        self.compacted(map, number).0
    }

    /// Length of an area with the components `map`, in the compacted or the standard form.
    pub(crate) fn area_bytes(&self, map: u64, compacted: bool) -> usize {
        if compacted {
            return self.compacted(map, 63).1;
        }
        (2..63)
            .filter(|number| map & 1u64.wrapping_shl(*number) != 0)
            .map(|number| self.component(number))
            .map(|component| component.offset_bytes.saturating_add(component.size_bytes))
            .fold(EXTENDED_REGION, usize::max)
    }

    /// Offset of component `number`, and the end of those before it.
    fn compacted(&self, map: u64, number: u32) -> (usize, usize) {
        let mut end = EXTENDED_REGION;
        for below in (2..number.min(63)).filter(|below| map & 1u64.wrapping_shl(*below) != 0) {
            let component = self.component(below);
            end = start(component, end).saturating_add(component.size_bytes);
        }
        (start(self.component(number), end), end)
    }
}

/// Where a component begins that comes after `end`.
fn start(component: XsaveComponent, end: usize) -> usize {
    if component.aligned {
        end.saturating_add(63) & !63
    } else {
        end
    }
}

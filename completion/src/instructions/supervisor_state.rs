//! The state components of supervisors that are model-specific registers: control-flow enforcement's (Intel SDM
//! volume 1, 13.5.9).

use crate::cpu::msr;
use crate::exception::{Exception, Step};
use crate::execution::Execution;
use crate::segmentation::is_canonical;
use crate::word::{at, put};
use crate::xsave_layout::component;

const USER: u64 = 1 << component::CET_USER;
const SUPERVISOR: u64 = 1 << component::CET_SUPERVISOR;
/// Both components.
pub const ALL: u64 = USER | SUPERVISOR;

/// The registers in the order of their images: two of the one component, three of the other.
const REGISTERS: [u32; 5] = [
    msr::U_CET,
    msr::PL3_SSP,
    msr::PL0_SSP,
    msr::PL1_SSP,
    msr::PL2_SSP,
];
/// Where the second component begins in all of them, in bytes.
const SECOND: usize = 16;

/// The values of the registers, of components that are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    image: [u8; 40],
    /// Components that are looked at.
    components: u64,
    /// Those that do not have their initial values, which are zeros.
    pub in_use: u64,
}

impl Values {
    /// Initial values of `components`.
    const fn initial(components: u64) -> Self {
        Self {
            image: [0; 40],
            components,
            in_use: 0,
        }
    }

    /// The image of component `number`, if it is one of these.
    pub fn image(&self, number: u32) -> Option<&[u8]> {
        let (user, supervisor) = self.image.split_at_checked(SECOND)?;
        match number {
            component::CET_USER => Some(user),
            component::CET_SUPERVISOR => Some(supervisor),
            _ => None,
        }
    }

    fn registers(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let components = [USER, USER, SUPERVISOR, SUPERVISOR, SUPERVISOR];
        let (values, _) = self.image.as_chunks();
        let values: [u64; 5] = [0, 1, 2, 3, 4].map(|number| {
            values
                .get(number)
                .map_or(0, |value| u64::from_le_bytes(*value))
        });
        REGISTERS
            .into_iter()
            .zip(values)
            .zip(components)
            .map(|((register, value), component)| (register, value, component))
    }
}

/// What the registers of the components in `requested` are.
pub fn read(x: &mut Execution<'_>, requested: u64) -> Step<Values> {
    let mut values = Values::initial(requested & ALL);
    for (number, (register, _, component)) in Values::initial(0).registers().enumerate() {
        if requested & component == 0 {
            continue;
        }
        let value = x.cpu.msr(register)?;
        put(
            &mut values.image,
            number.wrapping_mul(8),
            &value.to_le_bytes(),
        );
        if value != 0 {
            values.in_use |= component;
        }
    }
    Ok(values)
}

/// What an image of the components in `map` makes the registers of those in `requested`: zeros for those that
/// are not `loaded`. #GP for an address that is not canonical.
pub fn from_image(
    x: &Execution<'_>,
    requested: u64,
    loaded: u64,
    map: u64,
    image: &[u8],
) -> Step<Values> {
    let mut values = Values::initial(requested & ALL);
    values.in_use = loaded & ALL;
    let layout = x.cpu.xsave_layout();
    for (number, to) in [
        (component::CET_USER, 0),
        (component::CET_SUPERVISOR, SECOND),
    ] {
        if loaded & 1u64.wrapping_shl(number) != 0 {
            let from: [u8; 24] = at(image, layout.compacted_offset(map, number));
            let bytes = layout.component(number).size_bytes;
            put(&mut values.image, to, from.get(..bytes).unwrap_or_default());
        }
    }
    let canonical = |(register, value, _): (u32, u64, u64)| {
        register == msr::U_CET || is_canonical(&x.system, value) && value & 3 == 0
    };
    match values.registers().all(canonical) {
        true => Ok(values),
        false => Err(Exception::general_protection().into()),
    }
}

/// Sets the registers.
pub fn write(x: &mut Execution<'_>, values: &Values) -> Step {
    for (register, value, component) in values.registers() {
        if values.components & component != 0 {
            x.cpu.set_msr(register, value)?;
        }
    }
    Ok(())
}

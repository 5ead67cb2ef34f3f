//! What each arithmetic instruction on vectors of whole numbers does with 16 bytes at a time (Intel SDM
//! volume 2), in legacy, VEX and EVEX encoding alike.

use iced_x86::Mnemonic as M;

use super::cipher;
use super::lane::{self, Lane};
use super::secure_hash;

/// An operation on two elements of so many bytes, whose upper bytes are not looked at.
pub type Elements = fn(u64, u64, usize) -> u64;

/// What an instruction does with a lane.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// On pairs of elements of so many bytes.
    Pairs(usize, Elements),
    /// On elements of so many bytes, and a constant or the low quad word of the other operand.
    Shift(usize, Elements),
    /// On elements of so many bytes of one source.
    Single(usize, fn(u64, usize) -> u64),
    /// On both lanes and a constant.
    Lanes(fn(Lane, Lane, u64) -> Lane),
    /// On the lane of one source and a constant.
    Lane(fn(Lane, u64) -> Lane),
    /// Interleaves the elements of so many bytes of the low or high halves.
    Unpack { high: bool, bytes: usize },
    /// On three lanes, of which the first is the destination's, and a constant.
    Three(fn(Lane, Lane, Lane, u64) -> Lane),
    /// Takes elements of so many bytes from the second source where a third has its sign.
    Blend(usize),
}

macro_rules! table {
    ($($($name:ident)+ => $operation:expr;)*) => {
        /// The operation of `mnemonic`.
        pub fn operation(mnemonic: M) -> Option<Operation> {
            use Operation::{Blend, Lane, Lanes, Pairs, Shift, Single, Three, Unpack};
            Some(match mnemonic {
                $($(M::$name)|+ => $operation,)*
                _ => return None,
            })
        }
    };
}

table! {
    Pxor Vpxor Vpxord Vpxorq Xorps Vxorps Xorpd Vxorpd => Pairs(8, |a, b, _| a ^ b);
    Por Vpor Vpord Vporq Orps Vorps Orpd Vorpd => Pairs(8, |a, b, _| a | b);
    Pand Vpand Vpandd Vpandq Andps Vandps Andpd Vandpd => Pairs(8, |a, b, _| a & b);
    Pandn Vpandn Vpandnd Vpandnq Andnps Vandnps Andnpd Vandnpd => Pairs(8, |a, b, _| !a & b);
    Vpternlogd Vpternlogq => Three(|a, b, c, constant| lane::ternary(c, a, b, constant));

    Paddb Vpaddb => Pairs(1, lane::add);
    Paddw Vpaddw => Pairs(2, lane::add);
    Paddd Vpaddd => Pairs(4, lane::add);
    Paddq Vpaddq => Pairs(8, lane::add);
    Psubb Vpsubb => Pairs(1, lane::subtract);
    Psubw Vpsubw => Pairs(2, lane::subtract);
    Psubd Vpsubd => Pairs(4, lane::subtract);
    Psubq Vpsubq => Pairs(8, lane::subtract);
    Paddsb Vpaddsb => Pairs(1, lane::add_saturated);
    Paddsw Vpaddsw => Pairs(2, lane::add_saturated);
    Psubsb Vpsubsb => Pairs(1, lane::subtract_saturated);
    Psubsw Vpsubsw => Pairs(2, lane::subtract_saturated);
    Paddusb Vpaddusb => Pairs(1, lane::add_saturated_unsigned);
    Paddusw Vpaddusw => Pairs(2, lane::add_saturated_unsigned);
    Psubusb Vpsubusb => Pairs(1, |a, b, _| a.saturating_sub(b));
    Psubusw Vpsubusw => Pairs(2, |a, b, _| a.saturating_sub(b));
    Pavgb Vpavgb => Pairs(1, lane::average);
    Pavgw Vpavgw => Pairs(2, lane::average);
    Pmullw Vpmullw => Pairs(2, |a, b, _| a.wrapping_mul(b));
    Pmulld Vpmulld => Pairs(4, |a, b, _| a.wrapping_mul(b));
    Vpmullq => Pairs(8, |a, b, _| a.wrapping_mul(b));
    Pmulhw Vpmulhw => Pairs(2, lane::multiply_high);
    Pmulhuw Vpmulhuw => Pairs(2, |a, b, _| a.wrapping_mul(b) >> 16);
    Pmulhrsw Vpmulhrsw => Pairs(2, lane::multiply_rounded);
    Pmuludq Vpmuludq => Pairs(8, |a, b, _| (a & 0xffff_ffff).wrapping_mul(b & 0xffff_ffff));
    Pmuldq Vpmuldq => Pairs(8, lane::multiply_low_signed);
    Pmaddwd Vpmaddwd => Pairs(4, lane::multiply_and_add);
    Pmaddubsw Vpmaddubsw => Pairs(2, lane::multiply_and_add_bytes);
    Psadbw Vpsadbw => Pairs(8, lane::absolute_differences);
    Psignb Vpsignb => Pairs(1, lane::with_sign);
    Psignw Vpsignw => Pairs(2, lane::with_sign);
    Psignd Vpsignd => Pairs(4, lane::with_sign);
    Pabsb Vpabsb => Single(1, lane::absolute);
    Pabsw Vpabsw => Single(2, lane::absolute);
    Pabsd Vpabsd => Single(4, lane::absolute);
    Vpabsq => Single(8, lane::absolute);

    Pcmpeqb Vpcmpeqb => Pairs(1, lane::equal);
    Pcmpeqw Vpcmpeqw => Pairs(2, lane::equal);
    Pcmpeqd Vpcmpeqd => Pairs(4, lane::equal);
    Pcmpeqq Vpcmpeqq => Pairs(8, lane::equal);
    Pcmpgtb Vpcmpgtb => Pairs(1, lane::greater);
    Pcmpgtw Vpcmpgtw => Pairs(2, lane::greater);
    Pcmpgtd Vpcmpgtd => Pairs(4, lane::greater);
    Pcmpgtq Vpcmpgtq => Pairs(8, lane::greater);
    Vptestmb => Pairs(1, lane::common_bits);
    Vptestmw => Pairs(2, lane::common_bits);
    Vptestmd => Pairs(4, lane::common_bits);
    Vptestmq => Pairs(8, lane::common_bits);
    Vptestnmb => Pairs(1, lane::no_common_bits);
    Vptestnmw => Pairs(2, lane::no_common_bits);
    Vptestnmd => Pairs(4, lane::no_common_bits);
    Vptestnmq => Pairs(8, lane::no_common_bits);
    Pminub Vpminub => Pairs(1, |a, b, _| a.min(b));
    Pminuw Vpminuw => Pairs(2, |a, b, _| a.min(b));
    Pminud Vpminud => Pairs(4, |a, b, _| a.min(b));
    Vpminuq => Pairs(8, |a, b, _| a.min(b));
    Pmaxub Vpmaxub => Pairs(1, |a, b, _| a.max(b));
    Pmaxuw Vpmaxuw => Pairs(2, |a, b, _| a.max(b));
    Pmaxud Vpmaxud => Pairs(4, |a, b, _| a.max(b));
    Vpmaxuq => Pairs(8, |a, b, _| a.max(b));
    Pminsb Vpminsb => Pairs(1, lane::least);
    Pminsw Vpminsw => Pairs(2, lane::least);
    Pminsd Vpminsd => Pairs(4, lane::least);
    Vpminsq => Pairs(8, lane::least);
    Pmaxsb Vpmaxsb => Pairs(1, lane::greatest);
    Pmaxsw Vpmaxsw => Pairs(2, lane::greatest);
    Pmaxsd Vpmaxsd => Pairs(4, lane::greatest);
    Vpmaxsq => Pairs(8, lane::greatest);

    Psllw Vpsllw => Shift(2, lane::shift_left);
    Pslld Vpslld => Shift(4, lane::shift_left);
    Psllq Vpsllq => Shift(8, lane::shift_left);
    Psrlw Vpsrlw => Shift(2, lane::shift_right);
    Psrld Vpsrld => Shift(4, lane::shift_right);
    Psrlq Vpsrlq => Shift(8, lane::shift_right);
    Psraw Vpsraw => Shift(2, lane::shift_right_signed);
    Psrad Vpsrad => Shift(4, lane::shift_right_signed);
    Vpsraq => Shift(8, lane::shift_right_signed);
    Vprold => Shift(4, lane::rotate_left);
    Vprolq => Shift(8, lane::rotate_left);
    Vprord => Shift(4, lane::rotate_right);
    Vprorq => Shift(8, lane::rotate_right);
    Vprolvd => Pairs(4, lane::rotate_left);
    Vprolvq => Pairs(8, lane::rotate_left);
    Vprorvd => Pairs(4, lane::rotate_right);
    Vprorvq => Pairs(8, lane::rotate_right);
    Vpsllvw => Pairs(2, lane::shift_left);
    Vpsllvd => Pairs(4, lane::shift_left);
    Vpsllvq => Pairs(8, lane::shift_left);
    Vpsrlvw => Pairs(2, lane::shift_right);
    Vpsrlvd => Pairs(4, lane::shift_right);
    Vpsrlvq => Pairs(8, lane::shift_right);
    Vpsravw => Pairs(2, lane::shift_right_signed);
    Vpsravd => Pairs(4, lane::shift_right_signed);
    Vpsravq => Pairs(8, lane::shift_right_signed);
    Pslldq Vpslldq => Lanes(|a, _, count| lane::shift_bytes_left(a, count));
    Psrldq Vpsrldq => Lanes(|a, _, count| lane::shift_bytes_right(a, count));

    Pshufb Vpshufb => Lanes(|a, b, _| lane::shuffle_bytes(a, b));
    Pshufd Vpshufd => Lane(lane::shuffle_double_words);
    Pshuflw Vpshuflw Pshufw => Lane(lane::shuffle_low_words);
    Pshufhw Vpshufhw => Lane(lane::shuffle_high_words);
    Shufps Vshufps => Lanes(lane::shuffle_two);
    Shufpd Vshufpd => Lanes(lane::shuffle_two_quad_words);
    Palignr Vpalignr => Lanes(lane::align);
    Pblendw Vpblendw => Lanes(lane::blend_words);
    Pblendvb Vpblendvb => Blend(1);
    Blendvps Vblendvps => Blend(4);
    Blendvpd Vblendvpd => Blend(8);
    Movddup Vmovddup => Lane(|a, _| lane::pick(a, [0, 1, 0, 1]));
    Movshdup Vmovshdup => Lane(|a, _| lane::pick(a, [1, 1, 3, 3]));
    Movsldup Vmovsldup => Lane(|a, _| lane::pick(a, [0, 0, 2, 2]));
    Packsswb Vpacksswb => Lanes(|a, b, _| lane::pack(a, b, 2, true));
    Packssdw Vpackssdw => Lanes(|a, b, _| lane::pack(a, b, 4, true));
    Packuswb Vpackuswb => Lanes(|a, b, _| lane::pack(a, b, 2, false));
    Packusdw Vpackusdw => Lanes(|a, b, _| lane::pack(a, b, 4, false));
    Phaddw Vphaddw => Lanes(|a, b, _| lane::horizontal(a, b, 2, lane::add));
    Phaddd Vphaddd => Lanes(|a, b, _| lane::horizontal(a, b, 4, lane::add));
    Phaddsw Vphaddsw => Lanes(|a, b, _| lane::horizontal(a, b, 2, lane::add_saturated));
    Phsubw Vphsubw => Lanes(|a, b, _| lane::horizontal(a, b, 2, lane::subtract));
    Phsubd Vphsubd => Lanes(|a, b, _| lane::horizontal(a, b, 4, lane::subtract));
    Phsubsw Vphsubsw => Lanes(|a, b, _| lane::horizontal(a, b, 2, lane::subtract_saturated));
    Punpcklbw Vpunpcklbw => Unpack { high: false, bytes: 1 };
    Punpcklwd Vpunpcklwd => Unpack { high: false, bytes: 2 };
    Punpckldq Vpunpckldq Unpcklps Vunpcklps => Unpack { high: false, bytes: 4 };
    Punpcklqdq Vpunpcklqdq Unpcklpd Vunpcklpd => Unpack { high: false, bytes: 8 };
    Punpckhbw Vpunpckhbw => Unpack { high: true, bytes: 1 };
    Punpckhwd Vpunpckhwd => Unpack { high: true, bytes: 2 };
    Punpckhdq Vpunpckhdq Unpckhps Vunpckhps => Unpack { high: true, bytes: 4 };
    Punpckhqdq Vpunpckhqdq Unpckhpd Vunpckhpd => Unpack { high: true, bytes: 8 };

    Aesenc Vaesenc => Lanes(|a, b, _| cipher::encrypt(a, b, true));
    Aesenclast Vaesenclast => Lanes(|a, b, _| cipher::encrypt(a, b, false));
    Aesdec Vaesdec => Lanes(|a, b, _| cipher::decrypt(a, b, true));
    Aesdeclast Vaesdeclast => Lanes(|a, b, _| cipher::decrypt(a, b, false));
    Aesimc Vaesimc => Lane(|a, _| cipher::unmix_columns(a));
    Aeskeygenassist Vaeskeygenassist => Lane(cipher::key_assist);
    Pclmulqdq Vpclmulqdq => Lanes(cipher::multiply_without_carry);
    Sha1rnds4 => Lanes(secure_hash::sha1_rounds);
    Sha1nexte => Lanes(|a, b, _| secure_hash::sha1_next(a, b));
    Sha1msg1 => Lanes(|a, b, _| secure_hash::sha1_message_1(a, b));
    Sha1msg2 => Lanes(|a, b, _| secure_hash::sha1_message_2(a, b));
    Sha256rnds2 => Three(|a, b, c, _| secure_hash::sha256_rounds(a, b, c));
    Sha256msg1 => Lanes(|a, b, _| secure_hash::sha256_message_1(a, b));
    Sha256msg2 => Lanes(|a, b, _| secure_hash::sha256_message_2(a, b));
}

//! Processor features that decide whether an instruction exists, and where CPUID tells them.

use iced_x86::CpuidFeature;

/// A register of CPUID's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// The place of a feature bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidLocation {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question.
    pub subleaf: u32,
    /// Where the bit is in the answer.
    pub register: CpuidRegister,
    /// Its number.
    pub bit: u32,
}

macro_rules! features {
    ($($name:ident $decoder:ident $leaf:literal $subleaf:literal $register:ident $bit:literal $what:literal;)*) => {
        /// A feature that an instruction of this crate needs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Feature {
            $(#[doc = $what] $name,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Where CPUID tells it (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).
            pub const fn location(self) -> CpuidLocation {
                match self {
                    $(Self::$name => CpuidLocation {
                        leaf: $leaf,
                        subleaf: $subleaf,
                        register: CpuidRegister::$register,
                        bit: $bit,
                    },)*
                }
            }

            /// The feature that the decoder's name stands for, if an instruction can lack it.
            pub(crate) const fn from_decoder(feature: CpuidFeature) -> Option<Self> {
                match feature {
                    $(CpuidFeature::$decoder => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

features! {
    Cmpxchg8b CX8 1 0 Edx 8 "CMPXCHG8B.";
    ClflushSupport CLFSH 1 0 Edx 19 "CLFLUSH.";
    Mmx MMX 1 0 Edx 23 "MMX.";
    Fxsr FXSR 1 0 Edx 24 "FXSAVE and FXRSTOR.";
    Sse SSE 1 0 Edx 25 "SSE.";
    Sse2 SSE2 1 0 Edx 26 "SSE2.";
    Sse3 SSE3 1 0 Ecx 0 "SSE3.";
    Pclmulqdq PCLMULQDQ 1 0 Ecx 1 "PCLMULQDQ.";
    Monitor MONITOR 1 0 Ecx 3 "MONITOR and MWAIT.";
    Ssse3 SSSE3 1 0 Ecx 9 "SSSE3.";
    Cmpxchg16b CMPXCHG16B 1 0 Ecx 13 "CMPXCHG16B.";
    Sse41 SSE4_1 1 0 Ecx 19 "SSE4.1.";
    Sse42 SSE4_2 1 0 Ecx 20 "SSE4.2, CRC32.";
    Movbe MOVBE 1 0 Ecx 22 "MOVBE.";
    Popcnt POPCNT 1 0 Ecx 23 "POPCNT.";
    Aes AES 1 0 Ecx 25 "AES-NI.";
    Xsave XSAVE 1 0 Ecx 26 "XSAVE, XRSTOR, XGETBV, XSETBV.";
    Avx AVX 1 0 Ecx 28 "AVX.";
    Rdrand RDRAND 1 0 Ecx 30 "RDRAND.";
    Fsgsbase FSGSBASE 7 0 Ebx 0 "RDFSBASE and its family.";
    Bmi1 BMI1 7 0 Ebx 3 "BMI1.";
    Avx2 AVX2 7 0 Ebx 5 "AVX2.";
    Bmi2 BMI2 7 0 Ebx 8 "BMI2.";
    Invpcid INVPCID 7 0 Ebx 10 "INVPCID.";
    Avx512f AVX512F 7 0 Ebx 16 "AVX-512 foundation.";
    Avx512dq AVX512DQ 7 0 Ebx 17 "AVX-512 double and quad words.";
    Rdseed RDSEED 7 0 Ebx 18 "RDSEED.";
    Adx ADX 7 0 Ebx 19 "ADCX and ADOX.";
    Smap SMAP 7 0 Ebx 20 "SMAP, CLAC, STAC.";
    Clflushopt CLFLUSHOPT 7 0 Ebx 23 "CLFLUSHOPT.";
    Clwb CLWB 7 0 Ebx 24 "CLWB.";
    Sha SHA 7 0 Ebx 29 "SHA extensions.";
    Avx512bw AVX512BW 7 0 Ebx 30 "AVX-512 bytes and words.";
    Avx512vl AVX512VL 7 0 Ebx 31 "AVX-512 vector lengths.";
    Pku PKU 7 0 Ecx 3 "Protection keys, RDPKRU, WRPKRU.";
    Waitpkg WAITPKG 7 0 Ecx 5 "UMONITOR, UMWAIT, TPAUSE.";
    Vaes VAES 7 0 Ecx 9 "AES-NI on wide vectors.";
    Vpclmulqdq VPCLMULQDQ 7 0 Ecx 10 "PCLMULQDQ on wide vectors.";
    Rdpid RDPID 7 0 Ecx 22 "RDPID.";
    Movdiri MOVDIRI 7 0 Ecx 27 "MOVDIRI.";
    Movdir64b MOVDIR64B 7 0 Ecx 28 "MOVDIR64B.";
    Enqcmd ENQCMD 7 0 Ecx 29 "ENQCMD and ENQCMDS.";
    Serialize SERIALIZE 7 0 Edx 14 "SERIALIZE.";
    Xsaveopt XSAVEOPT 0xd 1 Eax 0 "XSAVEOPT.";
    Xsavec XSAVEC 0xd 1 Eax 1 "XSAVEC and the compacted form of XRSTOR.";
    Xsaves XSAVES 0xd 1 Eax 3 "XSAVES and XRSTORS.";
    Lzcnt LZCNT 0x8000_0001 0 Ecx 5 "LZCNT.";
    Monitorx MONITORX 0x8000_0001 0 Ecx 29 "MONITORX and MWAITX.";
    Rdtscp RDTSCP 0x8000_0001 0 Edx 27 "RDTSCP.";
    Clzero CLZERO 0x8000_0008 0 Ebx 0 "CLZERO.";
    Ptwrite PTWRITE 0x14 0 Ebx 4 "PTWRITE.";
}

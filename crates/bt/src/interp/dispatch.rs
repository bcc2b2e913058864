//! From an instruction to its handler.

use iced_x86::{Code, Instruction, Mnemonic};

use super::system::cpuid::Availability;
use super::system::cpuid::availability::bit_scan;
use super::{alu, bits, branch, multiply, native, retire, shift, stack, string, system, transfer};
use crate::cpu::Cpu;
use crate::env::{Env, Trap};

/// Executes `instruction`, decoded from the bytes at CS:RIP.
///
/// # Errors
/// The exception it raises, or an exit it needs; RIP and all registers are then as before, but
/// for the completed elements of a repeated string instruction.
#[inline]
pub fn execute<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    match env.availability(instruction.code()) {
        Availability::Present => present(cpu, env, instruction),
        other => unavailable(cpu, env, instruction, other),
    }
}

/// Executes what the processor does in place of an instruction that it does not have.
#[cold]
fn unavailable<E: Env>(
    cpu: &mut Cpu,
    env: &mut E,
    instruction: &Instruction,
    availability: Availability,
) -> Result<(), Trap> {
    match (availability, bit_scan(instruction.code())) {
        (Availability::BitScan, Some(code)) => {
            let mut scan = *instruction;
            scan.set_code(code);
            present(cpu, env, &scan)
        }
        (Availability::AbsentIn64Bit, _) if !cpu.mode64() => present(cpu, env, instruction),
        _ => Err(Trap::UD),
    }
}

/// Executes an instruction that the processor has.
#[inline]
fn present<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    use Mnemonic::*;
    match instruction.mnemonic() {
        Mov if transfer::is_plain_mov(instruction) => transfer::mov(cpu, env, instruction),
        Movnti | Movdiri => transfer::mov(cpu, env, instruction),
        Movzx | Movsx | Movsxd => transfer::extend(cpu, env, instruction),
        Lea => transfer::lea(cpu, instruction),
        Add | Adc | Sub | Sbb | And | Or | Xor => alu::binary(cpu, env, instruction),
        Cmp | Test => alu::compare(cpu, env, instruction),
        Inc | Dec | Neg | Not => alu::unary(cpu, env, instruction),
        Jo | Jno | Jb | Jae | Je | Jne | Jbe | Ja | Js | Jns | Jp | Jnp | Jl | Jge | Jle | Jg => {
            branch::conditional(cpu, instruction)
        }
        Jmp if !is_far(instruction) => branch::jmp(cpu, env, instruction),
        Call if !is_far(instruction) => branch::call(cpu, env, instruction),
        Ret => branch::ret(cpu, env, instruction),
        Push if !stack::is_segment_operand(instruction) => {
            stack::push_operand(cpu, env, instruction)
        }
        Pop if !stack::is_segment_operand(instruction) => stack::pop_operand(cpu, env, instruction),
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr => shift::shift(cpu, env, instruction),
        Leave => stack::leave(cpu, env, instruction),
        Nop | Endbr32 | Endbr64 | Reservednop | Rdsspd | Rdsspq | Prefetch | Prefetchw
        | Prefetchwt1 | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchit0
        | Prefetchit1 | Cldemote => retire(cpu, instruction),
        _ => rare(cpu, env, instruction),
    }
}

/// Less frequent instructions.
fn rare<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    use Mnemonic::*;
    match instruction.mnemonic() {
        Cmovo | Cmovno | Cmovb | Cmovae | Cmove | Cmovne | Cmovbe | Cmova | Cmovs | Cmovns
        | Cmovp | Cmovnp | Cmovl | Cmovge | Cmovle | Cmovg => transfer::cmov(cpu, env, instruction),
        Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp | Setnp
        | Setl | Setge | Setle | Setg => transfer::set(cpu, env, instruction),
        Movsb | Movsw | Movsd | Movsq | Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw | Lodsd
        | Lodsq | Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq => {
            match string::family(instruction) {
                Some(Movsb) => string::movs(cpu, env, instruction),
                Some(Stosb) => string::stos(cpu, env, instruction),
                Some(Lodsb) => string::lods(cpu, env, instruction),
                Some(Cmpsb) => string::cmps(cpu, env, instruction),
                Some(_) => string::scas(cpu, env, instruction),
                None => other(cpu, env, instruction),
            }
        }
        Xchg => alu::xchg(cpu, env, instruction),
        Xadd => alu::xadd(cpu, env, instruction),
        Cmpxchg => alu::cmpxchg(cpu, env, instruction),
        Cmpxchg8b => alu::cmpxchg8b(cpu, env, instruction),
        Cmpxchg16b => alu::cmpxchg16b(cpu, env, instruction),
        Adcx | Adox => alu::add_extended(cpu, env, instruction),
        Aaa | Aas | Aam | Aad | Daa | Das => alu::decimal(cpu, instruction),
        Cbw | Cwde | Cdqe | Cwd | Cdq | Cqo => alu::convert(cpu, instruction),
        Mul => multiply::mul(cpu, env, instruction),
        Imul => multiply::imul(cpu, env, instruction),
        Mulx => multiply::mulx(cpu, env, instruction),
        Div | Idiv => multiply::divide(cpu, env, instruction),
        Shld | Shrd => shift::double_shift(cpu, env, instruction),
        Shlx | Shrx | Sarx | Rorx => shift::flagless(cpu, env, instruction),
        Bt | Bts | Btr | Btc => bits::bit_test(cpu, env, instruction),
        Bsf | Bsr | Tzcnt | Lzcnt | Popcnt => bits::scan(cpu, env, instruction),
        Andn | Blsi | Blsmsk | Blsr | Bzhi | Pdep | Pext => bits::bmi(cpu, env, instruction),
        Bextr if instruction.encoding() == iced_x86::EncodingKind::VEX => {
            bits::bmi(cpu, env, instruction)
        }
        Crc32 => bits::crc32(cpu, env, instruction),
        Bswap => bits::bswap(cpu, instruction),
        Movbe => bits::movbe(cpu, env, instruction),
        Rdrand | Rdseed => bits::random(cpu, env, instruction),
        Loop | Loope | Loopne | Jcxz | Jecxz | Jrcxz => branch::counted(cpu, instruction),
        Xlatb => transfer::xlat(cpu, env, instruction),
        Lahf | Sahf | Clc | Stc | Cmc | Cld | Std | Salc => transfer::flags(cpu, instruction),
        Pusha | Pushad => stack::push_all(cpu, env, instruction),
        Popa | Popad => stack::pop_all(cpu, env, instruction),
        Pushf | Pushfd | Pushfq => stack::push_flags(cpu, env, instruction),
        Popf | Popfd | Popfq => stack::pop_flags(cpu, env, instruction),
        Enter => stack::enter(cpu, env, instruction),
        Bound => transfer::bound(cpu, env, instruction),
        Clflush | Clflushopt | Clwb => transfer::flush_line(cpu, env, instruction),
        Clzero => transfer::clzero(cpu, env, instruction),
        Pause => {
            std::hint::spin_loop();
            retire(cpu, instruction)
        }
        Lfence | Sfence | Mfence => {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            retire(cpu, instruction)
        }
        Ud0 | Ud1 | Ud2 | INVALID => Err(Trap::UD),
        _ => other(cpu, env, instruction),
    }
}

/// Vector, floating-point and system instructions.
fn other<E: Env>(cpu: &mut Cpu, env: &mut E, instruction: &Instruction) -> Result<(), Trap> {
    if let Some(result) = native::execute(cpu, env, instruction) {
        return result;
    }
    system::execute(cpu, env, instruction).unwrap_or(Err(Trap::UD))
}

/// Whether a JMP or CALL is far.
fn is_far(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Jmp_ptr1616
            | Code::Jmp_ptr1632
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_ptr1616
            | Code::Call_ptr1632
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    )
}

; Real-address mode (SDM vol. 3B, chapter 21; vol. 2 for the instructions).
%include "harness.inc"

%macro on_interrupt 2
    mov word [4 * %1], %2
    mov word [4 * %1 + 2], 0
%endmacro

main:
    on_interrupt 0, divide_error
    on_interrupt 4, count_trap
    on_interrupt 5, skip_fault
    on_interrupt 6, skip_fault
    on_interrupt 13, skip_fault
    on_interrupt 0x60, count_trap

    ; Flags: IOPL and NT can be set, bit 15 reads 0, bit 1 reads 1 (vol. 1, 3.4.3).
    push word 0x7002
    popf
    pushf
    pop ax
    and ax, 0xf02a
    cmp ax, 0x7002
    check e, "flags: IOPL, NT and the fixed bits"
    push word 0x0002
    popf

    ; Faults come with the address of the instruction, traps with the next one's.
    mov word [resume], .divided
    mov word [seen], 0
    xor bx, bx
    mov ax, 1
.division:
    div bl
.divided:
    cmp word [fault_at], .division
    check e, "DIV by zero: the saved IP is the instruction's"
    mov word [resume], .divided2
    mov word [fault_at], 0
    mov ax, 0x1000
    mov bl, 2
.division2:
    div bl
.divided2:
    cmp word [fault_at], .division2
    check e, "DIV with a quotient that is too large"
    mov word [seen], 0
    mov al, 0x7f
    add al, 1
    into
    cmp word [seen], 1
    check e, "INTO with OF set"
    mov al, 1
    add al, 1
    into
    cmp word [seen], 1
    check e, "INTO with OF clear"
    mov word [resume], .bounded
    mov word [fault_at], 0
    mov ax, 11
.bound:
    bound ax, [limits]
.bounded:
    cmp word [fault_at], .bound
    check e, "BOUND beyond its limits"
    mov word [resume], .undefined
    mov word [fault_at], 0
.lock:
    db 0xf0, 0x90
.undefined:
    cmp word [fault_at], .lock
    check e, "LOCK NOP is undefined"

    ; A word at offset FFFFh goes beyond the segment.
    mov word [resume], .wrapped
    mov word [fault_at], 0
    mov bx, 0xffff
.wrap:
    mov ax, [bx]
.wrapped:
    cmp word [fault_at], .wrap
    check e, "a word at FFFFh is beyond the limit"
    mov word [resume], .far_away
    mov word [fault_at], 0
    mov ebx, 0x10000
.beyond:
    mov al, [ebx]
.far_away:
    cmp word [fault_at], .beyond
    check e, "a 32-bit offset above FFFFh is beyond the limit"
    mov al, [bx]
    mov bx, 0xfffe
    mov si, 4
    mov word [2], 0x1234
    cmp word [bx + si], 0x1234
    check e, "16-bit addresses wrap at 64 KiB"
    on_interrupt 0, divide_error

    ; A20: the megabyte wraps when the gate is closed.
    mov ax, 0xffff
    mov fs, ax
    mov byte [0x500], 0x11
    in al, 0x92
    or al, 2
    out 0x92, al
    mov byte [fs:0x510], 0x22
    cmp byte [0x500], 0x11
    check e, "A20 open: FFFF:0510 is above one megabyte"
    ; It is open while port 92h or the keyboard controller holds it open.
    in al, 0x92
    and al, 0xfc
    out 0x92, al
    cli
    call keyboard_idle
    mov al, 0xd1
    out 0x64, al
    call keyboard_idle
    mov al, 0xdd
    out 0x60, al
    call keyboard_idle
    sti
    cmp byte [fs:0x510], 0x11
    check e, "A20 closed: FFFF:0510 is 0:0500"
    in al, 0x92
    or al, 2
    and al, 0xfe
    out 0x92, al
    cmp byte [fs:0x510], 0x22
    check e, "A20 open again"

    ; Single steps: a trap after each instruction while TF is set.
    on_interrupt 1, single_step
    mov word [steps], 0
    pushf
    pop ax
    or ax, 0x100
    push ax
    popf
    nop
    nop
    mov dx, 7
    mov word [stop_stepping], 1
    nop
    cmp word [steps], 4
    check e, "single steps are counted from the instruction after POPF"

    ; Strings, both ways.
    mov si, text
    mov di, 0x600
    mov cx, 5
    rep movsb
    cmp dword [0x600], "ring"
    check e, "REP MOVSB upwards"
    test cx, cx
    check z, "REP counts CX down to zero"
    std
    mov si, text + 4
    mov di, 0x601 + 4
    mov cx, 5
    rep movsb
    cld
    cmp dword [0x601], "ring"
    check e, "REP MOVSB downwards"
    cmp di, 0x600
    check e, "DI ends below"
    mov di, text
    mov al, "f"
    mov cx, 20
    repne scasb
    cmp di, text + 5
    check e, "REPNE SCASB stops behind what it found"
    mov cx, 0
    mov di, 0x700
    mov byte [di], 9
    rep stosb
    cmp byte [0x700], 9
    check e, "REP with CX zero does nothing"

    ; Decimal arithmetic.
    mov al, 0x79
    add al, 0x35
    daa
    cmp al, 0x14
    check e, "DAA"
    mov al, 0x47
    sub al, 0x69
    das
    cmp al, 0x78
    check e, "DAS"
    mov ax, 123
    aam
    cmp ax, 0x0c03
    check e, "AAM"
    mov ax, 0x0205
    aad
    cmp ax, 25
    check e, "AAD"
    mov ax, 0x000f
    aaa
    cmp ax, 0x0105
    check e, "AAA"

    ; Stack and calls.
    mov bp, sp
    pusha
    mov bx, sp
    cmp [bx + 6], bp
    check e, "PUSHA stores the SP from before it"
    popa
    push sp
    pop ax
    cmp ax, sp
    check e, "PUSH SP stores the SP from before it"
    push word 0x1111
    push word 0x2222
    call 0:far_routine
    cmp sp, bp
    check e, "RETF takes its parameters from the stack"
    mov cx, 0
    mov ax, 5
    jcxz .no_count
    mov ax, 6
.no_count:
    cmp ax, 5
    check e, "JCXZ"
    mov bx, table
    mov al, 3
    xlatb
    cmp al, 0x33
    check e, "XLAT"
    les di, [pointer]
    mov ax, es
    cmp ax, 0xb800
    check e, "LES"
    xor ax, ax
    mov es, ax
    mov ax, 1
    mov cl, 33
    shl ax, cl
    cmp ax, 2
    check e, "shift counts are taken modulo 32"

    ; The interrupt table is where IDTR says.
    mov si, 0
    mov di, 0x1000
    mov cx, 0x200
    rep movsw
    mov word [0x1000 + 4 * 0x60], relocated
    lidt [other_table]
    mov word [seen], 0
    int 0x60
    lidt [usual_table]
    cmp word [seen], 100
    check e, "LIDT moves the interrupt table"
    int 0x60
    cmp word [seen], 101
    check e, "LIDT moves it back"

    ; Limits stay as they were loaded in protected mode: "unreal" mode.
    cli
    lgdt [descriptors]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp $ + 2
    mov bx, 8
    mov gs, bx
    and al, 0xfe
    mov cr0, eax
    jmp $ + 2
    mov bx, 0
    mov gs, bx
    sti
    mov ebx, 0x150000
    mov dword [gs:ebx], "high"
    cmp dword [gs:ebx], "high"
    check e, "a limit of 4 GiB outlives the return to real mode"

    ; Interrupts come, and HLT waits for them.
    mov ebx, [0x46c]
    sti
    hlt
    hlt
    hlt
    mov eax, [0x46c]
    cmp eax, ebx
    check ne, "the BIOS counts timer interrupts"

    ; The BIOS reads the disk that this came from.
    mov ax, 0x0201
    mov bx, 0x2000
    mov cx, 1
    mov dx, 0
    int 0x13
    check nc, "INT 13h reads a sector"
    cmp word [0x2000 + 510], 0xaa55
    check e, "it is the boot sector"
    jmp finish

divide_error:
skip_fault:
    push bp
    mov bp, sp
    push ax
    mov ax, [bp + 2]
    mov [cs:fault_at], ax
    mov ax, [cs:resume]
    mov [bp + 2], ax
    pop ax
    pop bp
    iret

keyboard_idle:
    in al, 0x64
    test al, 2
    jnz keyboard_idle
    ret

count_trap:
    inc word [cs:seen]
    iret

relocated:
    add word [cs:seen], 100
    iret

single_step:
    inc word [cs:steps]
    cmp word [cs:stop_stepping], 0
    je .on
    push bp
    mov bp, sp
    and word [bp + 6], 0xfeff
    pop bp
.on:
    iret

far_routine:
    push bp
    mov bp, sp
    cmp word [bp + 6], 0x2222
    check e, "a far call's parameters lie above its return address"
    pop bp
    retf 4

resume: dw 0
seen: dw 0
fault_at: dw 0
steps: dw 0
stop_stepping: dw 0
limits: dw 0, 10
text: db "ringfence"
table: db 0, 0x11, 0x22, 0x33
pointer: dw 0x1234, 0xb800
usual_table: dw 0x3ff
    dd 0
other_table: dw 0x3ff
    dd 0x1000
    align 8
gdt: dq 0
    dq 0x00cf92000000ffff
descriptors: dw 15
    dd gdt

%include "end.inc"
